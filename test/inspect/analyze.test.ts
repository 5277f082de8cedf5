import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import { analyzeDescription, analyzeState, type Inspection } from '../../src/inspect/index.ts';
import { fixture, originOf, STREAMS } from '../wire/streams.ts';
import { inspectBytes, type MadeDevice, streamOf } from './files.ts';

async function stateText(inspection: Inspection): Promise<string> {
  let text = '';
  for await (const piece of analyzeState(inspection)) text += piece;
  return text;
}

async function stateOf(devices: Readonly<Record<string, MadeDevice>>): Promise<Record<string, unknown>> {
  return JSON.parse(await stateText(await inspectBytes(streamOf(devices)))) as Record<string, unknown>;
}

const field = (type: string, size: number, more = {}) => ({ name: 'f', type, size, ...more });

test('values as the analyser of QEMU words them', async (t) => {
  const cases: readonly (readonly [type: string, hex: string, expected: unknown])[] = [
    ['uint8', 'fe', '0xfe'],
    ['uint16', '00fe', '0x00fe'],
    ['uint32', 'ffffffff', '0xffffffff'],
    ['uint32 equal', 'ffffffff', '0xffffffff'],
    ['uint64', '8000000000000001', '0x8000000000000001'],
    ['int8', '7f', '0x7f'],
    ['int8', 'ff', '0xff (-1)'],
    ['int16', '8000', '0x8000 (-32768)'],
    ['int32', 'fffffffe', '0xfffffffe (-2)'],
    ['int32 le', '80000000', '0x80000000 (-2147483648)'],
    ['int64 equal', 'ffffffffffffffff', '0xffffffffffffffff (-1)'],
    // Shown as signed there.
    ['uint8 equal', 'ff', '0xff (-1)'],
    ['uint16 equal', 'ffff', '0xffff (-1)'],
    // Not known there: bytes.
    ['uint64 equal', '00000000000000ff', '00 00 00 00 00 00 00 ff'],
    ['bool', '00', false],
    ['bool', '02', true],
    ['timer', 'ffffffffffffffff', 'ff ff ff ff ff ff ff ff'],
    ['buffer', 'a0', 'a0'],
    ['buffer', '', ''],
    ['pci config', '8086abcd', '80 86 ab cd'],
    ['nullptr', '30', 'nullptr'],
    ['ptr-marker', '31', '31'],
    ['no such type', '0102', '01 02'],
  ];
  for (const [type, hex, expected] of cases) {
    await t.test(`${type} ${hex}`, async () => {
      const body = Buffer.from(hex, 'hex');
      const state = await stateOf({ a: { body, described: { fields: [field(type, body.length)] } } });
      assert.deepEqual(state, { 'a (20)': { f: expected } });
    });
  }
});

test('arrays, structs, subsections, fields that share a name', async () => {
  const inner = { vmsd_name: 'inner', version: 1, fields: [{ name: 'x', type: 'uint8', size: 1 }] };
  const sub = { vmsd_name: 'a/sub', version: 2, fields: [{ name: 'y', type: 'bool', size: 1 }] };
  const fields = [
    { name: 'array', array_len: 3, type: 'uint8', size: 1 },
    { name: 'structs', array_len: 2, type: 'struct', struct: inner, size: 1 },
    { name: 'one', type: 'struct', struct: inner, size: 1 },
    { name: 'mixed', type: 'nullptr', size: 1 },
    { name: 'mixed', index: 1, type: 'struct', struct: inner, size: 1 },
    { name: 'mixed', array_len: 2, type: 'nullptr', size: 1 },
    { name: 'empty', type: 'struct', struct: { vmsd_name: 'e', version: 1, fields: [] }, size: 0 },
    { name: '__proto__', type: 'uint8', size: 1 },
  ];
  const body = Buffer.from(`01020304050630073030080505${hexOf('a/sub')}0000000201`, 'hex');
  const text = await stateText(
    await inspectBytes(streamOf({ a: { body, described: { fields, subsections: [sub] } } })),
  );
  assert.equal(
    text,
    `{
    "a (20)": {
        "array": [
            "0x01",
            "0x02",
            "0x03"
        ],
        "structs": [
            {
                "x": "0x04"
            },
            {
                "x": "0x05"
            }
        ],
        "one": {
            "x": "0x06"
        },
        "mixed": [
            "nullptr",
            {
                "x": "0x07"
            },
            "nullptr",
            "nullptr"
        ],
        "empty": {},
        "__proto__": "0x08",
        "a/sub": {
            "y": true
        }
    }
}
`,
  );
});

test('what is not ASCII is escaped, as there', async () => {
  const fields = [{ name: 'caf\u00e9\u007f\u2028', type: 'uint8', size: 1 }];
  const text = await stateText(await inspectBytes(streamOf({ a: { body: Buffer.alloc(1), described: { fields } } })));
  assert.ok(!/[^\n\x20-\x7e]/.test(text), text);
});

test('a captured machine: ram and devices in stream order, some of them by value', async () => {
  const state = JSON.parse(await stateText(await inspectBytes(fixture('pc-7.2'))));
  const names = Object.keys(state);
  assert.deepEqual(names.slice(0, 3), ['ram (2)', 'timer (0)', 'cpu_common (4)']);
  assert.deepEqual(state['ram (2)'], {
    'section sizes': {
      'pc.ram': '0x0000000001000000',
      '/rom@etc/acpi/tables': '0x0000000000020000',
      'pc.rom': '0x0000000000020000',
      'pc.bios': '0x0000000000010000',
      '/rom@etc/table-loader': '0x0000000000001000',
      '/rom@etc/acpi/rsdp': '0x0000000000001000',
    },
  });
  const globalState = state[names.find((name) => name.startsWith('globalstate'))!];
  assert.equal(globalState.size, '0x0000000a');
  assert.equal(globalState.runstate, `70 72 65 6c 61 75 6e 63 68${' 00'.repeat(91)}`);
  const ioapic = state[names.find((name) => name.startsWith('ioapic'))!];
  assert.deepEqual(ioapic.ioredtbl, Array(24).fill('0x0000000000010000'));
  assert.equal(ioapic.unused, '00 00 00 00 00 00 00 00');
});

test('the description is printed as it was sent, keys in order', async () => {
  const inspection = await inspectBytes(fixture('pc-11.1'));
  const text = analyzeDescription(inspection);
  assert.deepEqual(JSON.parse(text), JSON.parse(inspection.description!));
  assert.match(text, /^\{\n {4}"configuration": \{\n {8}"vmsd_name": "configuration",\n/);
});

test('without a description, or with one that leaves a section out, the fault says so', async () => {
  const bare = await inspectBytes(fixture('no-vmdesc-10.0'));
  assert.throws(() => analyzeDescription(bare), hasCode('INSPECT_NO_DESCRIPTION'));
  await assert.rejects(stateText(bare), hasCode('INSPECT_NO_DESCRIPTION'));
  const gap = await inspectBytes(streamOf({ a: { body: Buffer.alloc(1), described: undefined } }));
  await assert.rejects(stateText(gap), hasCode('INSPECT_NOT_DESCRIBED'));
});

const analyzer = process.env['VMFERRY_ANALYZER'];
/** It reads neither commands, nor deltas, nor bitmaps, nor streams that do not begin at 0, nor subsections that are not described. */
const BEYOND_IT = /^(return-path|postcopy|xbzrle|dirty-bitmap|no-vmdesc|mapped-ram-offset)|^(uuid|ignore-shared)-7\.2$/;

test('the same JSON, byte for byte, from the analyser of QEMU itself', {
  skip: analyzer === undefined && 'VMFERRY_ANALYZER names no script',
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vmferry-analyze-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of STREAMS.filter((name) => !BEYOND_IT.test(name))) {
    await t.test(name, async () => {
      const file = join(folder, 'stream');
      writeFileSync(file, fixture(name));
      const theirs = (dump: string) => {
        const run = spawnSync('python3', [analyzer!, '-f', file, '-d', dump], {
          encoding: 'utf8',
          timeout: 60_000,
          maxBuffer: 2 ** 28,
        });
        assert.equal(run.status, 0, run.stderr.slice(-500));
        return run.stdout;
      };
      const inspection = await inspectBytes(fixture(name), originOf(name));
      assert.equal(await stateText(inspection), theirs('state'));
      assert.equal(analyzeDescription(inspection), theirs('desc'));
    });
  }
});

function hexOf(text: string): string {
  return Buffer.from(text).toString('hex');
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof FerryError && error.code === code;
}

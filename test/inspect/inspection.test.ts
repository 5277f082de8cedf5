import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { countBits } from '../../src/base/index.ts';
import { inspect, type Report } from '../../src/inspect/index.ts';
import { bitmapFromWire, wireBitmapBytes } from '../../src/wire/index.ts';
import { feed, fixture, NOWHERE, originOf, PROVENANCE, STREAMS } from '../wire/streams.ts';
import { accounted, fileOf, inspectBytes, streamOf } from './files.ts';

const SEED = 20261120;
/** Cut off on purpose, to be recovered. */
const isCut = (name: string) => /^postcopy-[\d.]+$/.test(name);
const inspectFixture = (name: string) => inspectBytes(fixture(name), originOf(name));

for (const name of STREAMS) {
  test(`${name}: every byte accounted for, every device as described`, async () => {
    const { report, description } = await inspectFixture(name);
    assert.equal(accounted(report), PROVENANCE[`${name}.bin.gz`]!.bytes);
    if (isCut(name)) {
      assert.equal(report.damage?.offset, report.fileBytes);
      assert.equal(report.damage?.code, 'WIRE_TRUNCATED');
      return;
    }
    assert.equal(report.damage, undefined);
    assert.deepEqual(report.unaccounted, []);
    assert.equal(report.format, name.startsWith('mapped-ram') ? 'mapped-ram' : 'stream');
    const full = report.sections.filter(({ kind }) => kind === 'full');
    const verdict = description === undefined ? undefined : 'exactly';
    assert.ok(full.length > 10);
    for (const section of full) assert.equal(section.described, verdict, section.idstr);
    assert.equal(report.description?.devices, description === undefined ? undefined : full.length);
    assert.ok(['prelaunch', 'running', 'paused'].includes(report.runState ?? ''), report.runState);
  });
}

for (const name of STREAMS.filter((name) => !isCut(name))) {
  test(`${name}: pages by kind add up`, async () => {
    const { report } = await inspectFixture(name);
    const blocks = report.ram!.blocks;
    const sum = (kind: 'normal' | 'zero' | 'xbzrle') => blocks.reduce((sum, block) => sum + block[kind], 0);
    if (report.format === 'mapped-ram') {
      const bytes = fixture(name);
      for (const { usedLength, normal, zero, mapped } of blocks) {
        if (mapped!.pagesOffset === 0) continue;
        const pages = usedLength / 4096;
        const end = mapped!.bitmapOffset + wireBitmapBytes(pages);
        assert.equal(normal, countBits(bitmapFromWire(bytes.subarray(mapped!.bitmapOffset, end), pages)));
        assert.equal(normal + zero, pages);
      }
      assert.equal(report.bytes.mappedPages, sum('normal') * 4096);
      return;
    }
    const origin = originOf(name);
    const { events } = feed(fixture(name).subarray(origin), { origin, sink: NOWHERE });
    const last = events.findLast((event) => event.kind === 'section-end' && event.ramPages !== undefined);
    assert.ok(last?.kind === 'section-end');
    const { normal, zero, xbzrle, xbzrleBytes } = last.ramPages!;
    assert.deepEqual([sum('normal'), sum('zero'), sum('xbzrle')], [normal, zero, xbzrle]);
    assert.equal(report.bytes.ramPages, normal * 4096);
    assert.equal(report.bytes.ramXbzrle ?? 0, xbzrleBytes);
  });
}

test('what is known of a capture is in the report', async () => {
  const { report } = await inspectFixture('xbzrle-10.0');
  assert.deepEqual(report.configuration, { machineType: 'pc-i440fx-7.2', pageSize: 4096, capabilities: [] });
  assert.equal(report.runState, 'running');
  assert.deepEqual(report.ram?.blocks[0], {
    idstr: 'pc.ram',
    usedLength: 16 * 1024 * 1024,
    normal: 99,
    zero: 4093,
    xbzrle: 59,
  });
  const ram = report.sections.filter(({ idstr }) => idstr === 'ram');
  assert.deepEqual(
    ram.map(({ kind }) => kind),
    ['start', 'part', 'end'],
  );
  assert.ok(ram[1]!.count > 1, 'PARTs are one entry');

  const uuid = await inspectFixture('uuid-11.1');
  const given = /-uuid (\S+)/.exec(PROVENANCE['uuid-11.1.bin.gz']!.command)![1];
  assert.equal(uuid.report.configuration?.uuid, given);

  const commands = (await inspectFixture('postcopy-advise-11.1')).report.commands;
  assert.deepEqual(
    commands.slice(0, 3).map(({ name, detail }) => `${name} ${detail}`),
    ['OPEN_RETURN_PATH ', 'PING value=1', 'POSTCOPY_ADVISE pageSizes=4096/4096'],
  );

  const shared = (await inspectFixture('mapped-ram-ignore-shared-11.1')).report;
  assert.deepEqual(shared.configuration?.capabilities, ['x-ignore-shared', 'mapped-ram']);
  assert.equal(shared.ram?.blocks[0]?.mapped?.pagesOffset, 0);
  assert.equal(shared.ram?.blocks[0]?.guestAddress, 0);
});

test('pages of mapped-ram are not read', async () => {
  const bytes = fixture('mapped-ram-11.1');
  const whole = fileOf(bytes);
  let read = 0;
  const { report } = await inspect({
    ...whole,
    async read(offset, into) {
      const count = await whole.read(offset, into);
      read += count;
      return count;
    },
  });
  assert.equal(report.damage, undefined);
  assert.ok(read < bytes.length / 2, `${read} of ${bytes.length} bytes read`);
});

for (const name of ['pc-7.2', 'xbzrle-10.0', 'mapped-ram-11.1', 'mapped-ram-offset-11.1', 'dirty-bitmap-11.1']) {
  test(`${name}: cut anywhere, it is explained up to the cut`, async () => {
    const bytes = fixture(name);
    const whole = (await inspectFixture(name)).report;
    const eof = whole.description!.offset;
    const points = new Set<number>();
    for (let i = 0; i < 60; i++) points.add(originOf(name) + Math.floor(((bytes.length - originOf(name)) * i) / 60));
    for (const { offset, bytes: length } of whole.sections) {
      for (const near of [offset - 1, offset, offset + 1, offset + length - 1]) points.add(near);
    }
    for (const cut of points) {
      const { report } = await inspectBytes(bytes.subarray(0, cut), originOf(name));
      assert.equal(accounted(report), cut, `cut at ${cut}`);
      // Right behind EOF the stream may end: an empty description is legal to leave out.
      if (cut !== eof) {
        assert.equal(report.damage?.code, 'WIRE_TRUNCATED', `cut at ${cut}`);
        assert.equal(report.damage?.offset, cut);
      }
      const seen = report.sections.filter(({ kind }) => kind === 'full').length;
      const before = whole.sections.filter(
        ({ kind, offset, bytes }) => kind === 'full' && offset + bytes <= cut,
      ).length;
      // The footer of the last section is believed only when something plausible follows it.
      assert.ok(seen === before || seen === before - 1, `cut at ${cut}: ${seen} of ${before} sections`);
    }
  });
}

test('blocks of a mapped-ram file that is cut in its pages are still shown', async () => {
  const bytes = fixture('mapped-ram-11.1');
  const { report } = await inspectBytes(bytes.subarray(0, 0x1280000));
  assert.deepEqual(
    report.ram?.blocks.map(({ idstr, normal }) => `${idstr} ${normal}`),
    ['pc.ram 0', '/rom@etc/acpi/tables 2', 'pc.rom 0'],
  );
  assert.equal(report.damage?.path, 'section ram');
  assert.equal(report.damage?.offset, 0x1280000);
});

test('hostile: files with random bytes written over never do worse than damage', async () => {
  const names = ['pc-11.1', 'xbzrle-7.2', 'mapped-ram-10.0', 'dirty-bitmap-11.1', 'postcopy-7.2'];
  const stain = fc.record({
    at: fc.double({ min: 0, max: 0.999, noNaN: true }),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 9 }),
  });
  let damaged = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...names),
      fc.array(stain, { minLength: 1, maxLength: 3 }),
      async (name, stains) => {
        const bytes = Buffer.from(fixture(name));
        // Half of the stains go where the structure is dense.
        stains.forEach(({ at, bytes: stain }, i) => {
          const place = i % 2 === 0 ? Math.floor(at * bytes.length) : bytes.length - 1 - Math.floor(at * 110_000);
          bytes.set(stain.subarray(0, bytes.length - place), Math.max(0, place));
        });
        const { report } = await inspectBytes(bytes);
        assert.equal(accounted(report), bytes.length);
        if (report.damage === undefined) return;
        damaged++;
        assert.ok(report.damage.offset >= 0 && report.damage.offset <= bytes.length);
        assert.match(report.damage.code, /^(WIRE|VMDESC)_/);
      },
    ),
    { seed: SEED, numRuns: 150 },
  );
  assert.ok(damaged > 30, `only ${damaged} damaged`);
});

test('damage is told with place and expectation', async () => {
  const bytes = fixture('pc-7.2');
  const { report: whole } = await inspectBytes(bytes);
  const cpu = whole.sections.find(({ idstr }) => idstr === 'cpu')!;
  const ram = whole.sections.find(({ kind }) => kind === 'part')!;
  const edit = (offset: number, hex: string) => {
    const edited = Buffer.from(bytes);
    edited.write(hex, offset, 'hex');
    return inspectBytes(edited);
  };
  const facts = ({ report: { damage } }: { report: Report }) =>
    damage && [damage.offset, damage.path, damage.expected, damage.found];

  assert.deepEqual(facts(await edit(0, '51455640')), [0, 'header', 'magic: 0x5145564d (QEVM)', '0x51455640']);
  assert.deepEqual(facts(await edit(cpu.offset, '0b')), [cpu.offset, '', 'element type: 00 to 04 or 08', '0x0b']);
  const flags = await edit(ram.offset + 5 + 6, '0001');
  assert.equal(flags.report.damage?.offset, ram.offset + 5);
  assert.match(flags.report.damage!.path, /^section ram/);
  const json = await edit(whole.description!.offset + 5, '5b');
  assert.deepEqual(facts(json), [whole.description!.offset, 'description', 'JSON', 'something else']);
  assert.equal(json.report.damage?.code, 'VMDESC_NOT_JSON');
});

const blob = (size: number) => ({ fields: [{ name: 'data', size, type: 'buffer' }] });

test('guest memory that looks like a footer: the description tells the sections apart', async () => {
  // The body of section 20 holds its own footer and the beginning of a section that is none.
  const bait = Buffer.from(`${'11'.repeat(30)}7e00000014${'04'}000000ff${'04'}62616974${'22'.repeat(30)}`, 'hex');
  const devices = {
    'a/vram': { body: bait, described: blob(bait.length) },
    'b/next': { body: Buffer.alloc(7), described: blob(7) },
  };
  const { report, devices: found } = await inspectBytes(streamOf(devices));
  assert.equal(report.damage, undefined);
  assert.equal(report.description?.usedToSplit, true);
  assert.deepEqual(
    report.sections.map(({ idstr, bodyBytes, described }) => [idstr, bodyBytes, described]),
    [
      ['a/vram', bait.length, 'exactly'],
      ['b/next', 7, 'exactly'],
    ],
  );
  for await (const { section, body } of found(({ idstr }) => idstr === 'a/vram')) {
    assert.equal(section.idstr, 'a/vram');
    assert.deepEqual(body, bait);
  }
  // Without a description nobody can tell.
  const { report: blind } = await inspectBytes(streamOf(devices, { description: false }));
  assert.notEqual(blind.damage, undefined);
  assert.equal(accounted(blind), blind.fileBytes);
});

test('a body that its description does not fit is damage; one that is not described is not', async () => {
  const body = Buffer.alloc(8);
  const wrong = await inspectBytes(streamOf({ a: { body, described: blob(8) }, b: { body, described: blob(7) } }));
  assert.deepEqual(
    wrong.report.sections.map(({ described }) => described),
    ['exactly', 'wrongly'],
  );
  assert.equal(wrong.report.damage?.code, 'VMDESC_MISMATCH');
  assert.equal(wrong.report.damage?.offset, wrong.report.sections[1]!.bodyOffset! + 7);

  const silent = await inspectBytes(streamOf({ a: { body, described: blob(8) }, b: { body, described: undefined } }));
  assert.equal(silent.report.damage, undefined);
  assert.deepEqual(
    silent.report.sections.map(({ described }) => described),
    ['exactly', 'not at all'],
  );
});

test('bytes around the stream are listed', async () => {
  const stream = streamOf({ a: { body: Buffer.alloc(3), described: blob(3) } });
  const { report } = await inspectBytes(Buffer.concat([Buffer.alloc(100), stream, Buffer.alloc(50)]), 100);
  assert.equal(report.damage, undefined);
  assert.equal(report.bytes.before, 100);
  assert.deepEqual(report.unaccounted, [{ offset: 100 + stream.length, bytes: 50 }]);
  assert.equal(accounted(report), report.fileBytes);

  const nothing = await inspectBytes(Buffer.alloc(0), 100);
  assert.equal(nothing.report.damage?.code, 'WIRE_TRUNCATED');
  assert.equal(accounted(nothing.report), 0);
});

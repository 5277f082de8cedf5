import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { FerryError, Writer } from '../../../src/base/index.ts';
import {
  encodeSectionBegin,
  encodeSectionFooter,
  type SectionHeader,
  type StreamEvent,
} from '../../../src/wire/index.ts';
import {
  encodeBody,
  parseVmdesc,
  splitDeviceSections,
  type Vmdesc,
  type VmdescDevice,
  VmdescIndex,
  vmdescDevice,
  vmdescText,
  WALKED_FIELDS_MAX,
  type WalkedBody,
  walkBody,
} from '../../../src/wire/vmstate/index.ts';
import { fixtures } from '../../support/repository.ts';
import { feed, fixture, originOf, STREAMS } from '../streams.ts';
import { type Sample, sample } from './samples.ts';

const SEED = 20261120;
const parsed = new Map<string, readonly StreamEvent[]>();

function eventsOf(name: string): readonly StreamEvent[] {
  const known = parsed.get(name);
  if (known !== undefined) return known;
  const { events } = feed(fixture(name).subarray(originOf(name)), { origin: originOf(name) });
  parsed.set(name, events);
  return events;
}

function descriptionOf(name: string): string {
  for (const event of eventsOf(name)) if (event.kind === 'description') return event.text;
  throw new Error(`${name} has no description`);
}

const DESCRIBED = STREAMS.filter((name) => eventsOf(name).some(({ kind }) => kind === 'description'));

test('captured device bodies are exactly as the stream describes them', async (t) => {
  assert.ok(DESCRIBED.length > 20, `${DESCRIBED.length} captures with a description`);
  for (const name of DESCRIBED) {
    await t.test(name, () => {
      const vmdesc = parseVmdesc(descriptionOf(name));
      const index = new VmdescIndex(vmdesc);
      let devices = 0;
      for (const event of eventsOf(name)) {
        if (event.kind !== 'device' || event.section.kind !== 'full') continue;
        const device = index.find(event.section);
        assert.ok(device, `${event.section.idstr} is described`);
        const walked = walkBody(device, event.body);
        assert.equal(walked.size, event.body.length);
        assert.deepEqual(structSizes(walked), describedSizes(device));
        devices++;
      }
      assert.equal(devices, vmdesc.devices.length);
    });
  }
});

test('the description splits device sections as footers do', async (t) => {
  for (const name of DESCRIBED) {
    await t.test(name, () => {
      const full = eventsOf(name).filter((event) => event.kind === 'device' && event.section.kind === 'full');
      const origin = full[0]!.offset;
      const eof = eventsOf(name).find(({ kind }) => kind === 'eof')!.offset;
      // The region, and what follows it up to the end of the file.
      const bytes = fixture(name).subarray(origin, eof + 1 + (name.endsWith('7.2') ? 50 : 0));
      const split = splitDeviceSections(bytes, parseVmdesc(descriptionOf(name)), origin);
      assert.deepEqual(
        split.map(({ section, offset, bodyOffset, bodyLength }) => ({ section, offset, bodyOffset, bodyLength })),
        full.map((event) => {
          assert.ok(event.kind === 'device');
          const { section, offset, bodyOffset, body } = event;
          return { section, offset, bodyOffset, bodyLength: body.length };
        }),
      );
    });
  }
});

test('our VMDESC says of the configuration what that of QEMU says', async (t) => {
  for (const name of DESCRIBED.filter((name) => !name.endsWith('7.2'))) {
    await t.test(name, () => {
      const event = eventsOf(name).find(({ kind }) => kind === 'configuration');
      assert.ok(event?.kind === 'configuration');
      const theirs = JSON.parse(descriptionOf(name));
      const ours = JSON.parse(vmdescText(event.configuration, theirs.page_size, theirs.devices));
      assert.deepEqual(ours, theirs);
      assert.deepEqual(Object.keys(ours), Object.keys(theirs));
    });
  }
});

test('arrays of pointers: markers and elements of QEMU 11.1 share a name', () => {
  const file = join(fixtures('vmdesc'), 'nvme-11.1.json.gz');
  const capture = JSON.parse(gunzipSync(readFileSync(file)).toString());
  const [device] = parseVmdesc(JSON.stringify({ page_size: 4096, devices: [capture.device] })).devices;
  const body = Buffer.from(capture.body, 'base64');
  const { fields } = walkBody(device!, body);
  const sq = fields.filter(({ name }) => name === 'sq');
  const markers = sq.filter((field) => field.kind === 'leaf');
  assert.equal(markers.length, 65);
  assert.deepEqual(
    markers.slice(0, 3).map(({ offset }) => body.toString('latin1', offset, offset + 1)),
    ['1', '1', '0'],
  );
  assert.deepEqual(
    sq.slice(0, 5).map(({ kind }) => kind),
    ['leaf', 'struct', 'leaf', 'struct', 'leaf'],
  );
});

test('capabilities are read by their own length', () => {
  const device = {
    name: 'configuration',
    instance_id: 0,
    fields: [{ name: 'capabilities', array_len: 2, type: 'capability', size: 16 }],
  };
  const body = Buffer.from('\x0fx-ignore-shared\x0amapped-ram', 'latin1');
  assert.deepEqual(
    walkBody(device, body).fields.map(({ offset, size }) => ({ offset, size })),
    [
      { offset: 0, size: 16 },
      { offset: 16, size: 11 },
    ],
  );
});

test('a description that is not one is refused with the place in it', async (t) => {
  const device = (fields: unknown, more = {}) => ({
    page_size: 4096,
    devices: [{ name: 'a', instance_id: 0, fields, ...more }],
  });
  const nested = (depth: number): object => ({
    vmsd_name: 's',
    version: 1,
    fields: depth === 0 ? [] : [{ name: 'f', type: 'struct', size: 0, struct: nested(depth - 1) }],
  });
  const cases: Record<string, [unknown, string]> = {
    'a list': [[], ''],
    'no page size': [{ devices: [] }, 'page_size'],
    'devices as text': [{ page_size: 4096, devices: 'none' }, 'devices'],
    'null device': [{ page_size: 4096, devices: [null] }, 'devices[0]'],
    'name as number': [{ page_size: 4096, devices: [{ name: 1 }] }, 'devices[0].name'],
    'negative size': [device([{ name: 'f', type: 'uint8', size: -1 }]), 'devices[0].fields[0].size'],
    'fractional size': [device([{ name: 'f', type: 'uint8', size: 0.5 }]), 'devices[0].fields[0].size'],
    'huge array': [
      device([{ name: 'f', type: 'uint8', array_len: 2 ** 32, size: 1 }]),
      'devices[0].fields[0].array_len',
    ],
    'struct without struct': [device([{ name: 'f', type: 'struct', size: 1 }]), 'devices[0].fields[0].struct'],
    'subsection without name': [
      device([], { subsections: [{ version: 1, fields: [] }] }),
      'devices[0].subsections[0].vmsd_name',
    ],
    'too deep': [
      device([{ name: 'f', type: 'struct', size: 0, struct: nested(40) }]),
      `devices[0]${'.fields[0].struct'.repeat(33)}`,
    ],
  };
  for (const [name, [json, path]] of Object.entries(cases)) {
    await t.test(name, () => {
      const fault = faultOf(() => parseVmdesc(JSON.stringify(json)));
      assert.equal(fault.code, 'VMDESC_UNEXPECTED_VALUE');
      assert.equal(fault['path'], path);
    });
  }
  await t.test('not JSON', () => {
    assert.deepEqual(
      faultOf(() => parseVmdesc('{"page_size": 4096,')),
      { code: 'VMDESC_NOT_JSON' },
    );
    assert.deepEqual(
      faultOf(() => parseVmdesc('['.repeat(1_000_000))),
      { code: 'VMDESC_NOT_JSON' },
    );
  });
});

test('a body that is not as described is refused with offset and path', async (t) => {
  const sub = { vmsd_name: 'a/sub', version: 1, fields: [{ name: 'x', type: 'uint8', size: 1 }] };
  const device: VmdescDevice = {
    name: 'a',
    instance_id: 0,
    fields: [{ name: 'f', type: 'uint16', array_len: 2, size: 2 }],
    subsections: [sub],
  };
  const name = Buffer.from('a/sub').toString('hex');
  const good = `000100020505${name}0000000107`;
  assert.equal(walkBody(device, Buffer.from(good, 'hex')).subsections[0]?.offset, 15);
  const cases: Record<string, [string, number, string]> = {
    'ends in an array': ['000100', 100, 'section a / f'],
    'no subsection': ['00010002', 104, 'section a / a/sub'],
    'another byte': [good.replace('020505', '020605'), 104, 'section a / a/sub'],
    'another name': [good.replace(name, name.replace('62', '63')), 104, 'section a / a/sub'],
    'another version': [good.replace('0000000107', '0000000207'), 104, 'section a / a/sub'],
    'ends in the subsection': [good.slice(0, -2), 115, 'section a / a/sub / x'],
    'too long': [`${good}00`, 116, 'section a'],
  };
  for (const [name, [hex, offset, path]] of Object.entries(cases)) {
    await t.test(name, () => {
      const fault = faultOf(() => walkBody(device, Buffer.from(hex, 'hex'), 'main', 100));
      assert.deepEqual(
        { code: fault.code, stream: fault['stream'], offset: fault['offset'], path: fault['path'] },
        { code: 'VMDESC_MISMATCH', stream: 'main', offset, path },
      );
    });
  }
});

test('fields that cost no bytes may not cost memory either', () => {
  const empty = { vmsd_name: 's', version: 1, fields: [] };
  const bomb = (levels: number): VmdescDevice['fields'] => [
    levels === 0
      ? { name: 'f', type: 'uint8', array_len: WALKED_FIELDS_MAX + 1, size: 0 }
      : { name: 'f', type: 'struct', array_len: 0xffff_ffff, size: 0, struct: { ...empty, fields: bomb(levels - 1) } },
  ];
  for (const levels of [0, 1, 3]) {
    const fault = faultOf(() => walkBody({ name: 'a', instance_id: 0, fields: bomb(levels) }, Buffer.alloc(0)));
    assert.equal(fault.code, 'VMDESC_MISMATCH');
  }
  const wide = [{ name: 'f', type: 'uint64', array_len: 0xffff_ffff, size: 0xffff_ffff }];
  assert.equal(
    faultOf(() => walkBody({ name: 'a', instance_id: 0, fields: wide }, Buffer.alloc(9))).code,
    'VMDESC_MISMATCH',
  );
});

/** A region of device sections as a stream has it, with its description. */
function region(samples: readonly Sample[]): {
  bytes: Buffer;
  vmdesc: Vmdesc;
  sections: SectionHeader[];
  ends: number[];
} {
  const writer = new Writer();
  const devices: VmdescDevice[] = [];
  const sections: SectionHeader[] = [];
  const ends: number[] = [];
  samples.forEach(({ description, state }, i) => {
    const section: SectionHeader = {
      kind: 'full',
      id: 40 + i,
      idstr: `bus/${description.name}`,
      instance: i,
      version: description.version,
    };
    encodeSectionBegin(writer, section);
    writer.raw(encodeBody(description, state));
    encodeSectionFooter(writer, section.id);
    devices.push(vmdescDevice(description, state, section));
    sections.push(section);
    ends.push(writer.length);
  });
  const vmdesc = parseVmdesc(JSON.stringify({ page_size: 4096, devices }));
  return { bytes: Buffer.from(writer.bytes()), vmdesc, sections, ends };
}

test('any devices of ours: their VMDESC splits and walks them; every truncation is refused', () => {
  fc.assert(
    fc.property(fc.array(sample('device', 2), { minLength: 1, maxLength: 3 }), (samples) => {
      const { bytes, vmdesc, sections, ends } = region(samples);
      const split = splitDeviceSections(bytes, vmdesc, 1000);
      assert.deepEqual(
        split.map(({ section }) => section),
        sections,
      );
      split.forEach(({ walked, bodyOffset, bodyLength }, i) => {
        const { description, state } = samples[i]!;
        assert.equal(bodyLength, description.byteLength(state));
        assert.equal(bodyOffset + bodyLength + 5 - 1000, ends[i]);
        assert.equal(walked.subsections.length, description.vmdesc(state).subsections?.length ?? 0);
      });
      const step = Math.max(1, Math.floor(bytes.length / 40));
      for (let cut = 0; cut < bytes.length; cut += step) {
        if (cut === 0 || ends.includes(cut)) continue;
        const fault = faultOf(() => splitDeviceSections(bytes.subarray(0, cut), vmdesc));
        assert.match(fault.code, /^(VMDESC_MISMATCH|WIRE_TRUNCATED)$/);
      }
    }),
    { seed: SEED, numRuns: 100 },
  );
});

test('a section that is not described ends the split by name', () => {
  const { bytes, vmdesc } = region(fc.sample(sample('device', 1), { seed: SEED, numRuns: 2 }));
  const fault = faultOf(() => splitDeviceSections(bytes, { ...vmdesc, devices: vmdesc.devices.slice(0, 1) }, 0));
  assert.equal(fault.code, 'VMDESC_DEVICE_MISSING');
  assert.equal(fault['instance'], 1);
});

test('hostile: mutated descriptions over captured bodies end in a result or a typed error, soon', () => {
  const name = 'pc-11.1';
  const text = descriptionOf(name);
  const bodies = eventsOf(name).flatMap((event) => (event.kind === 'device' ? [event] : []));
  const number = fc.oneof(fc.nat(9), fc.constantFrom(0xff, 0xffff, 0xffff_ffff, 2 ** 40, -1, 1e300));
  const mutation = fc.oneof(
    // A number for a number keeps the JSON whole.
    fc.record({ at: fc.nat(text.length), insert: number.map(String), kind: fc.constant('number' as const) }),
    fc.record({ at: fc.nat(text.length), insert: fc.string({ maxLength: 5 }), kind: fc.constant('splice' as const) }),
  );
  let parsedOnes = 0;
  const startedMs = performance.now();
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) => {
      let mutated = text;
      for (const { at, insert, kind } of mutations) {
        if (kind === 'splice') mutated = mutated.slice(0, at) + insert + mutated.slice(at + insert.length);
        else mutated = mutated.slice(0, at) + mutated.slice(at).replace(/: \d+/, `: ${insert}`);
      }
      let vmdesc: Vmdesc;
      try {
        vmdesc = parseVmdesc(mutated);
      } catch (error) {
        assert.ok(error instanceof FerryError && error.code.startsWith('VMDESC_'), String(error));
        return;
      }
      parsedOnes++;
      const index = new VmdescIndex(vmdesc);
      for (const { section, body } of bodies) {
        const device = index.find(section);
        if (device === undefined) continue;
        try {
          assert.equal(walkBody(device, body).size, body.length);
        } catch (error) {
          assert.ok(error instanceof FerryError && error.code === 'VMDESC_MISMATCH', String(error));
        }
      }
    }),
    { seed: SEED, numRuns: 200 },
  );
  assert.ok(parsedOnes > 20, `only ${parsedOnes} of the mutations were JSON`);
  assert.ok(performance.now() - startedMs < 60_000);
});

/** Sizes of all structs, as walked and as described, in the same order. */
function structSizes({ fields, subsections }: WalkedBody): number[] {
  return [
    ...fields.flatMap((field) => (field.kind === 'struct' ? [field.size, ...structSizes(field.body)] : [])),
    ...subsections.flatMap(structSizes),
  ];
}

function describedSizes({ fields, subsections }: Pick<VmdescDevice, 'fields' | 'subsections'>): number[] {
  return [
    ...fields.flatMap(({ struct, size, array_len }) => {
      if (struct === undefined) return [];
      const one = [size, ...describedSizes(struct)];
      return Array.from({ length: array_len ?? 1 }, () => one).flat();
    }),
    ...(subsections ?? []).flatMap(describedSizes),
  ];
}

function faultOf(act: () => unknown): { code: string; [fact: string]: unknown } {
  try {
    act();
  } catch (error) {
    if (error instanceof FerryError) return error.fault as { code: string };
    throw error;
  }
  throw new Error('no error was thrown');
}

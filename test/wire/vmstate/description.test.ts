import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FerryError, Reader, STARVED } from '../../../src/base/index.ts';
import {
  array,
  bool,
  decodeBody,
  encodeBody,
  globalState,
  globalStateOf,
  measureBody,
  type StateOf,
  struct,
  subsection,
  text,
  timer,
  u8,
  u16,
  u64,
  unused,
  vmdescDevice,
  vmstate,
} from '../../../src/wire/vmstate/index.ts';
import { sample } from './samples.ts';

const pending = vmstate({ name: 'uart/pending', version: 2, fields: { irq: u8 } });
const line = vmstate({ name: 'line', version: 1, fields: { level: bool, since: timer } });
const uart = vmstate({
  name: 'uart',
  version: 3,
  fields: {
    divider: u16,
    gap: unused(2),
    fifo: array(u8, 3),
    lines: array(struct(line), 2),
    owner: text(4),
    clock: u64,
  },
  subsections: { pending: subsection(pending, ({ irq }) => irq !== 0) },
});
type Uart = StateOf<typeof uart>;

const state: Uart = {
  divider: 0x1234,
  fifo: [1, 2, 3],
  lines: [
    { level: true, since: undefined },
    { level: false, since: 5n },
  ],
  owner: 'vm',
  clock: 0x8000_0000_0000_0001n,
};
const fieldsHex =
  '1234' + '0000' + '010203' + '01ffffffffffffffff' + '000000000000000005' + '766d0000' + '8000000000000001';
const pendingHex = '05' + '0c' + Buffer.from('uart/pending').toString('hex') + '00000002' + '07';

test('a state becomes the bytes QEMU would write, and comes back', () => {
  assert.equal(encodeBody(uart, state).toString('hex'), fieldsHex);
  assert.deepEqual(decodeBody(uart, 3, Buffer.from(fieldsHex, 'hex')), state);

  const withPending = { ...state, pending: { irq: 7 } };
  assert.equal(encodeBody(uart, withPending).toString('hex'), fieldsHex + pendingHex);
  assert.deepEqual(decodeBody(uart, 3, Buffer.from(fieldsHex + pendingHex, 'hex')), withPending);
});

test('a subsection that is not needed is not sent', () => {
  assert.equal(encodeBody(uart, { ...state, pending: { irq: 0 } }).toString('hex'), fieldsHex);
});

test('bytes that do not fit are refused with place and path', async (t) => {
  const cases = {
    'too long': [fieldsHex + '00', { code: 'VMSTATE_TRAILING_BYTES', offset: 137, path: 'uart', count: 1 }],
    'bool 2': [
      fieldsHex.replace('01ff', '02ff'),
      { code: 'VMSTATE_UNEXPECTED_VALUE', offset: 107, path: 'uart.lines[0].level', expected: '0 or 1', found: '2' },
    ],
    'text without NUL': [
      fieldsHex.replace('766d0000', '766d766d'),
      { code: 'VMSTATE_UNEXPECTED_VALUE', offset: 125, path: 'uart.owner', expected: 'NUL', found: 'none' },
    ],
    'subsection of another version': [
      fieldsHex + pendingHex.replace('00000002', '00000001'),
      { code: 'VMSTATE_VERSION_UNSUPPORTED', offset: 151, path: 'uart/pending', expected: 2, found: 1 },
    ],
    'subsection twice': [
      fieldsHex + pendingHex + pendingHex,
      { code: 'VMSTATE_SUBSECTION_REPEATED', offset: 156, path: 'uart', found: 'uart/pending' },
    ],
    'subsection nobody knows': [
      fieldsHex + pendingHex.replace('70656e64', '50656e64'),
      { code: 'VMSTATE_SUBSECTION_UNKNOWN', offset: 137, path: 'uart', found: 'uart/Pending' },
    ],
    'subsection of another parent': [
      fieldsHex + pendingHex.replace('75617274', '55617274'),
      { code: 'VMSTATE_TRAILING_BYTES', offset: 137, path: 'uart', count: 19 },
    ],
    'cut short in a nested field': [
      fieldsHex.slice(0, 20),
      { code: 'VMSTATE_TRUNCATED', offset: 110, path: 'uart.lines[0].since' },
    ],
  } as const;
  for (const [name, [hex, fault]] of Object.entries(cases)) {
    await t.test(name, () => {
      assert.deepEqual(
        faultOf(() => decodeBody(uart, 3, Buffer.from(hex, 'hex'), { stream: 'main', offset: 100 })),
        {
          stream: 'main',
          ...fault,
        },
      );
    });
  }
  await t.test('another version of the section', () => {
    assert.deepEqual(
      faultOf(() => decodeBody(uart, 4, Buffer.from(fieldsHex, 'hex'))),
      {
        code: 'VMSTATE_VERSION_UNSUPPORTED',
        stream: 'stream',
        offset: 0,
        path: 'uart',
        expected: 3,
        found: 4,
      },
    );
  });
});

test('the VMDESC entry has the shape that QEMU gives it', () => {
  assert.deepEqual(
    JSON.stringify(vmdescDevice(uart, { ...state, pending: { irq: 7 } }, { idstr: '0000:00:04.0/uart', instance: 0 })),
    JSON.stringify({
      name: '0000:00:04.0/uart',
      instance_id: 0,
      vmsd_name: 'uart',
      version: 3,
      fields: [
        { name: 'divider', type: 'uint16', size: 2 },
        { name: 'unused', type: 'unused_buffer', size: 2 },
        { name: 'fifo', array_len: 3, type: 'uint8', size: 1 },
        {
          name: 'lines',
          array_len: 2,
          type: 'struct',
          struct: {
            vmsd_name: 'line',
            version: 1,
            fields: [
              { name: 'level', type: 'bool', size: 1 },
              { name: 'since', type: 'timer', size: 8 },
            ],
          },
          size: 9,
        },
        { name: 'owner', type: 'buffer', size: 4 },
        { name: 'clock', type: 'uint64', size: 8 },
      ],
      subsections: [{ vmsd_name: 'uart/pending', version: 2, fields: [{ name: 'irq', type: 'uint8', size: 1 }] }],
    }),
  );
});

test('elements that may carry subsections are described one by one', () => {
  const board = vmstate({ name: 'board', version: 1, fields: { uarts: array(struct(uart), 2), one: array(u8, 1) } });
  const { fields } = board.vmdesc({ uarts: [state, { ...state, pending: { irq: 1 } }], one: [0] });
  assert.deepEqual(
    fields.map(({ name, index, array_len, size }) => ({ name, index, array_len, size })),
    [
      { name: 'uarts', index: 0, array_len: undefined, size: 37 },
      { name: 'uarts', index: 1, array_len: undefined, size: 37 + 19 },
      { name: 'one', index: undefined, array_len: undefined, size: 1 },
    ],
  );
});

test('globalstate: 104 bytes, read alike from before and after 8.2', () => {
  const bytes = encodeBody(globalState, globalStateOf('running'));
  assert.equal(bytes.length, 104);
  assert.equal(bytes.toString('hex'), ('00000008' + '72756e6e696e6700').padEnd(208, '0'));
  assert.deepEqual(decodeBody(globalState, 1, bytes), globalStateOf('running'));
  const suspended = Buffer.from(bytes);
  suspended[36] = 1;
  suspended[37] = 1;
  suspended[103] = 9;
  assert.equal(decodeBody(globalState, 1, suspended).vm_was_suspended, 1);
});

test('any description: round trip, exact lengths, and every truncation refused', () => {
  fc.assert(
    fc.property(sample('device', 2), ({ description, state }) => {
      const bytes = encodeBody(description, state);
      assert.equal(bytes.length, description.byteLength(state));
      assert.deepEqual(decodeBody(description, description.version, bytes), state);
      assert.equal(measureBody(description, Buffer.concat([bytes, Buffer.from([0x7e])])), bytes.length);
      const step = Math.max(1, Math.floor(bytes.length / 50));
      for (let cut = 0; cut < bytes.length; cut += step) {
        const part = bytes.subarray(0, cut);
        const refused = attempt(() => decodeBody(description, description.version, part));
        // Cut just before a subsection, the rest is a whole state without it.
        if (refused === undefined) assert.equal(bytes[cut], 0x05);
        else assert.equal(refused.code, 'VMSTATE_TRUNCATED');
        assert.throws(
          () => description.decode(new Reader(part)),
          (error) => error === STARVED,
        );
        assert.equal(measureBody(description, part), undefined);
      }
    }),
    { seed: 20261120, numRuns: 300 },
  );
});

test('a declaration that could not work is refused where it is made', () => {
  assert.throws(() => vmstate({ name: 'a', version: 1, fields: { 7: u8 } }), /numbers as keys/);
  const other = vmstate({ name: 'b/c', version: 1, fields: {} });
  assert.throws(
    () => vmstate({ name: 'a', version: 1, fields: {}, subsections: { c: subsection(other) } }),
    /a\/\.\.\./,
  );
});

function attempt(run: () => unknown): FerryError | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    assert.ok(error instanceof FerryError, String(error));
    return error;
  }
}

function faultOf(run: () => unknown): unknown {
  return attempt(run)?.fault;
}

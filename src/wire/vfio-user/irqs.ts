/**
 * SET_IRQS: u32 argsz  u32 flags  u32 index  u32 start  u32 count  [count bytes, 0 or 1 each].  Reply: nothing.
 *
 * The flags say what comes with it (none 1, bools 2, eventfds 4: descriptors beside the message) and what is done (mask 8, unmask 0x10,
 * trigger 0x20), one of each. @spec linux include/uapi/linux/vfio.h VFIO_DEVICE_SET_IRQS
 */
import { type Field, ownArgsz, rest, struct, u32 } from './layout.ts';

const DATA = { none: 1, bool: 2, eventfd: 4 } as const;
const ACTION = { mask: 8, unmask: 0x10, trigger: 0x20 } as const;
const DATA_MASK = 0x07;
const ACTION_MASK = 0x38;

export interface SetIrqs {
  readonly data: keyof typeof DATA;
  readonly action: keyof typeof ACTION;
  /** Interrupt type. */
  readonly index: number;
  /** First and number of its vectors. */
  readonly start: number;
  readonly count: number;
  /** With data `bool`: for each vector whether it is meant. */
  readonly bools: readonly boolean[];
}

/** Interrupt types of PCI devices: INTX, MSI, MSIX, ERR, REQ. */
export const PCI_IRQ_COUNT = 5;

const Wire = struct({ argsz: ownArgsz(20), flags: u32, index: u32, start: u32, count: u32, bools: rest });

export const SetIrqs: Field<SetIrqs> = {
  bytes: Wire.bytes,
  sizeOf: ({ bools }) => Wire.bytes + bools.length,
  read(payload, name) {
    const at = payload.pos;
    const { flags, index, start, count, bools } = Wire.read(payload, name);
    const data = nameOf(DATA, flags & DATA_MASK);
    const action = nameOf(ACTION, flags & ACTION_MASK);
    if (data === undefined || action === undefined || (flags & ~(DATA_MASK | ACTION_MASK)) !== 0) {
      throw payload.wrong(at + 4, 'flags', 'one kind of data and one action', '0x' + flags.toString(16));
    }
    if (data !== 'bool') return { data, action, index, start, count, bools: [] };
    if (count > bools.length) throw payload.wrong(at + 16, 'count', `at most ${bools.length}, as bytes follow`, count);
    return { data, action, index, start, count, bools: Array.from(bools.subarray(0, count), (bool) => bool !== 0) };
  },
  write(into, at, { data, action, index, start, count, bools }, payloadBytes) {
    const flags = DATA[data] | ACTION[action];
    Wire.write(into, at, { flags, index, start, count, bools: Buffer.from(bools.map(Number)) }, payloadBytes);
  },
};

function nameOf<N extends string>(table: Readonly<Record<N, number>>, number: number): N | undefined {
  return (Object.keys(table) as N[]).find((name) => table[name] === number);
}

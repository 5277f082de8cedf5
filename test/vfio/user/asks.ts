/** What the tests of the server say to it, and how they see that a client has gone. */
import assert from 'node:assert/strict';
import { vfioUser } from '../../../src/wire/index.ts';

const NOTHING = Buffer.alloc(0);

export type Ask = { [C in vfioUser.CommandName]: readonly [C, vfioUser.Request<C>] }[vfioUser.CommandName];
export const feature = (index: number, get: boolean, set: boolean, data: Buffer = NOTHING, argsz = 64): Ask => [
  'DEVICE_FEATURE',
  { argsz, flags: { index, get, set, probe: false }, data },
];
export const map = (address: number, size: number, flags = 3): Ask => ['DMA_MAP', { flags, offset: 0, address, size }];
export const unmap = (address: number, size: number, flags = 0): Ask => [
  'DMA_UNMAP',
  { argsz: 64, flags, address, size, bitmap: undefined },
];
export const state = (number: number) =>
  feature(
    2,
    false,
    true,
    bytes(8, (into) => into.writeUInt32LE(number)),
  );
export const logging = (pageSize: number, ranges: readonly vfioUser.LoggedRange[]) =>
  feature(6, false, true, vfioUser.encodeBody(vfioUser.FEATURES.DMA_LOGGING_START.set, { pageSize, ranges }));
export const report = (iova: number, length: number, pageSize: number, argsz = 4096) =>
  feature(
    8,
    true,
    false,
    vfioUser.encodeBody(vfioUser.FEATURES.DMA_LOGGING_REPORT.get.request, { iova, length, pageSize }),
    argsz,
  );

export function header(command: number, size: number, flags = 0, id = 0x55): Buffer {
  return bytes(16, (into) => {
    into.writeUInt16LE(id, 0);
    into.writeUInt16LE(command, 2);
    into.writeUInt32LE(size, 4);
    into.writeUInt32LE(flags, 8);
  });
}

export function message(command: number, payload: Buffer): Buffer {
  return Buffer.concat([header(command, 16 + payload.length), payload]);
}

export function bytes(length: number, fill: (into: Buffer) => void): Buffer {
  const into = Buffer.alloc(length);
  fill(into);
  return into;
}

export type Events = readonly { readonly kind: string; readonly reason?: Error }[];

/** Waits until as many clients have gone as have come. */
export async function gone(events: Events): Promise<void> {
  const count = (kind: string) => events.filter((event) => event.kind === kind).length;
  for (let turn = 0; count('gone') < count('client'); turn++) {
    assert.ok(turn < 1000, 'the client is not let go');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export function lastGone(events: Events): Error | undefined {
  return events.filter((event) => event.kind === 'gone').at(-1)?.reason;
}

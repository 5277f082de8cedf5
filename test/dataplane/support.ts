/** Guest memory in shared blocks, pairs of connected descriptors, and a link between them that can be held and cut. */
import { closeSync, readdirSync, readlinkSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  announceChannel,
  type PageChannels,
  ReceiveChannels,
  type ReceiveOptions,
  SendChannels,
  type SendOptions,
} from '../../src/dataplane/index.ts';
import type { MemoryRam, SharedRam } from '../../src/machine/index.ts';
import { MULTIFD_INITIAL_BYTES, writeMultifdHeader } from '../../src/wire/index.ts';
import { receiveAll, socketPair } from '../native/sockets.ts';

export const PAGE = 4096;
/** Of a packet of pages. */
export const HEADER = 1344;

/** One block for each page count. */
export function ramOf(...pageCounts: number[]): MemoryRam {
  return {
    kind: 'memory',
    isZero: false,
    pageSize: PAGE,
    blocks: pageCounts.map((pages, index) => ({
      idstr: `block${index}`,
      usedLength: pages * PAGE,
      memory: new SharedArrayBuffer((pages + index) * PAGE),
      byteOffset: index * PAGE,
    })),
  };
}

export function bytesOf(ram: MemoryRam, block: number): Buffer {
  const { memory, byteOffset, usedLength } = ram.blocks[block]!;
  return Buffer.from(memory, byteOffset, usedLength);
}

/** Fills the page so that no two versions and no two pages are the same; version 0 is zero. */
export function writePage(ram: MemoryRam, block: number, page: number, version: number): void {
  const bytes = bytesOf(ram, block).subarray(page * PAGE, (page + 1) * PAGE);
  if (version === 0) bytes.fill(0);
  else
    for (let at = 0; at < PAGE; at += 16) bytes.writeInt32LE((version * 4096 + page) ^ (block << 28) ^ (at & 0x3f), at);
}

export function sameRam(a: MemoryRam, b: MemoryRam): boolean {
  return a.blocks.every((_, block) => bytesOf(a, block).equals(bytesOf(b, block)));
}

/** Descriptors of sockets that this process holds. */
export function openSockets(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
}

export type Pair = readonly [source: number, destination: number];

export function pairs(count: number): Pair[] {
  return Array.from({ length: count }, () => socketPair());
}

export const ignore = (): void => {};

export async function sender(
  t: TestContext,
  fds: readonly number[],
  ram: SharedRam,
  { uuid, ...more }: Partial<SendOptions> & { readonly uuid?: Uint8Array } = {},
) {
  for (const [channel, fd] of fds.entries()) announceChannel({ fd }, channel, uuid);
  const options = { compression: 'none', level: 1, findZeroPages: true, failed: ignore } as const;
  const channels = await SendChannels.start({ ...options, lines: fds.map((fd) => ({ fd })), ram, ...more });
  t.after(async () => {
    channels.cancel();
    await channels.closed();
  });
  return channels;
}

/** Reads the initial packets first, as main does. */
export async function receiver(
  t: TestContext,
  fds: readonly number[],
  ram: SharedRam,
  more: Partial<ReceiveOptions> = {},
) {
  for (const fd of fds) receiveAll(fd, MULTIFD_INITIAL_BYTES);
  return receiverBehindInitial(t, fds, ram, more);
}

export async function receiverBehindInitial(
  t: TestContext,
  fds: readonly number[],
  ram: SharedRam,
  more: Partial<ReceiveOptions> = {},
) {
  const lines = fds.map((fd) => ({ fd }));
  const channels = await ReceiveChannels.start({ compression: 'none', failed: ignore, lines, ram, ...more });
  t.after(async () => {
    channels.cancel();
    await channels.closed();
  });
  return channels;
}

/** Adds pages one by one, waiting for room. */
export async function addAll(channels: PageChannels, block: number, pages: Iterable<number>): Promise<void> {
  for (const page of pages) while (!channels.add(block, page)) await channels.room();
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd);
}

/** Writes all of it to a socket that nobody may read yet. */
export function writeFromThread(fd: number, bytes: Buffer, andClose?: 'and close'): Promise<void> {
  const code = `
    const { closeSync, writeSync } = require('node:fs');
    const { workerData: { fd, bytes, andClose } } = require('node:worker_threads');
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    if (andClose) closeSync(fd);`;
  const thread = new Worker(code, { eval: true, workerData: { fd, bytes, andClose }, trackUnmanagedFds: false });
  return new Promise((resolve, reject) => thread.once('exit', () => resolve()).once('error', reject));
}

/** Of `block0`: so many pages of 0xab, then so many zero ones, from its beginning; or of nothing. */
export function packet(normal: number, zero: number, flags = 0): Buffer {
  const bytes = Buffer.alloc(HEADER + normal * PAGE, 0xab);
  const offsets = Float64Array.from({ length: normal + zero }, (_, page) => page * PAGE);
  const name = normal + zero === 0 ? undefined : Buffer.from('block0');
  writeMultifdHeader(bytes.subarray(0, HEADER), flags, name, normal, zero, normal * PAGE, 1, offsets);
  return bytes;
}

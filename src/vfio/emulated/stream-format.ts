/**
 * The stream of an emulated VF: its own business, opaque to everyone else. All integers are little endian.
 *
 * ```
 * header     u32 magic  u32 version 1  u32 seed  u32 0  f64 state bytes  f64 initial bytes  f64 DMA bytes          40 bytes
 * record *   u32 type  u32 first page  u32 page count  u32 check                                                   16 bytes
 *   PAGES      page count * 4096 bytes         REGISTERS, END: no pages; REGISTERS is followed by its 4 KiB + 8 * REGISTERS bytes
 * ```
 * PAGES of the initial part come first and in order, later ones as the device changes; REGISTERS and END once, when it has stopped.
 */
import { mix } from '../../base/index.ts';

export const STREAM_MAGIC = 0x4656_4656;
export const STREAM_VERSION = 1;
export const HEADER_BYTES = 40;
export const RECORD_BYTES = 16;

export const RECORD = { PAGES: 1, REGISTERS: 2, END: 3 } as const;

/** f64 each. */
export const Register = {
  OPERATIONS: 0,
  DMA_OPERATIONS: 1,
  /** DMA writes that guest memory refused. */
  DMA_FAILURES: 2,
  PEER_SENT: 3,
  PEER_RECEIVED: 4,
} as const;
export const REGISTERS = 5;

/** The BAR, 4 KiB that the guest may write, then the registers. */
export const BAR_BYTES = 4096;
export const REGISTERS_BYTES = BAR_BYTES + 8 * REGISTERS;

export interface StreamHeader {
  readonly seed: number;
  readonly stateBytes: number;
  readonly initialBytes: number;
  readonly dmaBytes: number;
}

export function encodeStreamHeader(header: StreamHeader): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt32LE(STREAM_MAGIC, 0);
  bytes.writeUInt32LE(STREAM_VERSION, 4);
  bytes.writeUInt32LE(header.seed, 8);
  bytes.writeDoubleLE(header.stateBytes, 16);
  bytes.writeDoubleLE(header.initialBytes, 24);
  bytes.writeDoubleLE(header.dmaBytes, 32);
  return bytes;
}

/** `index`: how many records come before it. */
export function encodeRecord(type: number, first: number, count: number, index: number): Buffer {
  const bytes = Buffer.allocUnsafe(RECORD_BYTES);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(first, 4);
  bytes.writeUInt32LE(count, 8);
  bytes.writeUInt32LE(recordCheck(type, first, count, index), 12);
  return bytes;
}

/** A reader that has lost its place, or a record, finds none. */
export function recordCheck(type: number, first: number, count: number, index: number): number {
  return mix(STREAM_MAGIC ^ mix(type ^ mix(first ^ mix(count ^ mix(index))))) >>> 0;
}

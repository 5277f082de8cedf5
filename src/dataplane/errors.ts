import { asError, FerryError } from '../base/index.ts';
import { NativeError, type NativeFault } from '../native/index.ts';
import { type DeviceAddress, isWireError, type WireFault } from '../wire/multifd/index.ts';

/** `channel`: its number; `offset`: bytes of the channel before the place, its initial packet included. */
export interface ChannelPlace {
  readonly channel: number;
  readonly offset: number;
}

export interface FilePlace {
  readonly path: string;
  readonly operation: 'read' | 'write';
  readonly position: number;
  readonly errno: string;
}

/** A buffer of device state: `index` counts those of one device. */
export interface BufferPlace extends DeviceAddress {
  readonly index: number;
}

export type DataplaneFault =
  /** The connection failed; `errno` is the system's name. */
  | (ChannelPlace & { readonly code: 'DATAPLANE_LOST'; readonly errno: string })
  /** The TLS session was broken off by an alert, or by bytes that are no record of it. */
  | (ChannelPlace & { readonly code: 'DATAPLANE_TLS'; readonly reason: string })
  /** The connection ended and its TLS session did not: what was to come may have been cut off by anybody. */
  | (ChannelPlace & { readonly code: 'DATAPLANE_TLS_CUT' })
  /** The peer ended the channel, whole packets only, before the SYNC that is waited for (the first is 1). */
  | (ChannelPlace & { readonly code: 'DATAPLANE_ENDED'; readonly sync: number })
  /** Pages behind the last point where the channels met: nothing would tell when they are all here. */
  | (ChannelPlace & { readonly code: 'DATAPLANE_LATE_PAGES' })
  /** The compression library refuses: bytes that are no stream of the method, or more or less content than announced. */
  | (ChannelPlace & { readonly code: 'DATAPLANE_CODEC'; readonly method: string; readonly reason: string })
  /** RAM that lies in a file: reading or writing it failed at `position` of it; `errno` is the system's name, EOF if the file is too short. */
  | (ChannelPlace & FilePlace & { readonly code: 'DATAPLANE_FILE' })
  /** A buffer of device state that cannot be where it came. */
  | (ChannelPlace & BufferPlace & { readonly code: 'DATAPLANE_STATE_ORDER'; readonly wrong: string })
  /** The device does not load the buffer. */
  | (ChannelPlace & BufferPlace & { readonly code: 'DATAPLANE_STATE_LOAD'; readonly reason: string })
  /** All channels have ended, and this buffer has not come. */
  | (BufferPlace & { readonly code: 'DATAPLANE_STATE_MISSING' })
  /**
   * All channels hold buffers that no device can take, and the memory for them is full, or main waits for a point behind them before devices may
   * load. No sender whose channels keep order, and which sends state behind SWITCHOVER_START only, gets there.
   */
  | { readonly code: 'DATAPLANE_STATE_STUCK'; readonly slots: number }
  /** A thread ended for a reason of its own: our mistake, or no memory. */
  | { readonly code: 'DATAPLANE_THREAD'; readonly channel: number }
  /** The package that a compression method needs cannot be used here. */
  | { readonly code: 'DATAPLANE_UNAVAILABLE'; readonly method: string }
  | { readonly code: 'DATAPLANE_CANCELLED' };

/** All that can end a channel. */
export type ChannelFault = DataplaneFault | WireFault | NativeFault;
export type ChannelError = FerryError<ChannelFault>;

export function dataplaneError(fault: DataplaneFault, message: string, cause?: unknown): FerryError<DataplaneFault> {
  return new FerryError(fault, message, cause);
}

/** What the peer, the stream's labels and errors call the channel. */
export function channelLabel(channel: number): string {
  return `multifd ${channel}`;
}

export function cancelled(reason?: unknown): ChannelError {
  return dataplaneError({ code: 'DATAPLANE_CANCELLED' }, 'the channels were closed here', reason);
}

/** Refused by a compression library; the loops say where. */
export class CodecRefusal extends Error {}

/** A file of RAM failed; the loops say which channel met it. */
export class FileFailure extends Error {
  readonly place: FilePlace;

  constructor(place: FilePlace, cause: unknown) {
    const why = place.errno === 'ENOSPC' ? 'no space left on the device' : place.errno;
    super(`${place.path}: cannot ${place.operation} pages at ${place.position} (${why})`, { cause });
    this.place = place;
  }
}

/** A buffer of device state is refused; the loops say where. */
export class StateRefusal extends Error {
  readonly fault: Extract<DataplaneFault, { readonly code: 'DATAPLANE_STATE_ORDER' | 'DATAPLANE_STATE_LOAD' }>;

  constructor(
    fault: BufferPlace &
      ({ code: 'DATAPLANE_STATE_ORDER'; wrong: string } | { code: 'DATAPLANE_STATE_LOAD'; reason: string }),
    cause?: unknown,
  ) {
    const why = fault.code === 'DATAPLANE_STATE_ORDER' ? fault.wrong : `cannot be loaded: ${fault.reason}`;
    super(`device ${fault.idstr} ${fault.instance}: buffer ${fault.index}: ${why}`, { cause });
    this.fault = { channel: -1, offset: -1, ...fault };
  }
}

/** What a thread's loop threw, as what ended the channel at that place. */
export function channelError(thrown: unknown, place: ChannelPlace, method: string): ChannelError {
  const where = `${channelLabel(place.channel)}: offset ${place.offset}`;
  const errno = errnoOf(thrown);
  if (errno !== undefined) {
    return dataplaneError({ code: 'DATAPLANE_LOST', ...place, errno }, `${where}: connection lost (${errno})`, thrown);
  }
  if (thrown instanceof NativeError && thrown.fault.code === 'NATIVE_TLS') {
    const { reason } = thrown.fault;
    return dataplaneError({ code: 'DATAPLANE_TLS', ...place, reason }, `${where}: TLS: ${reason}`, thrown);
  }
  if (thrown instanceof NativeError && thrown.fault.code === 'NATIVE_TLS_CUT') {
    const message = `${where}: the connection ended, but its TLS session did not: it was cut off, or the peer gave up`;
    return dataplaneError({ code: 'DATAPLANE_TLS_CUT', ...place }, message);
  }
  if (thrown instanceof CodecRefusal) {
    const reason = thrown.message;
    return dataplaneError({ code: 'DATAPLANE_CODEC', ...place, method, reason }, `${where}: ${method}: ${reason}`);
  }
  if (thrown instanceof FileFailure) {
    return dataplaneError({ code: 'DATAPLANE_FILE', ...place, ...thrown.place }, `${where}: ${thrown.message}`, thrown);
  }
  if (thrown instanceof StateRefusal) {
    return dataplaneError({ ...thrown.fault, ...place }, `${where}: ${thrown.message}`, thrown);
  }
  if (isWireError(thrown) || thrown instanceof NativeError || isDataplaneError(thrown)) return thrown;
  const { channel } = place;
  return dataplaneError({ code: 'DATAPLANE_THREAD', channel }, `${where}: its thread failed`, asError(thrown));
}

/** The system's name of a failed call, of ours or of node:fs. */
function errnoOf(thrown: unknown): string | undefined {
  if (thrown instanceof NativeError) return thrown.fault.code === 'NATIVE_CALL' ? thrown.fault.errno : undefined;
  return thrown instanceof Error && 'syscall' in thrown && 'code' in thrown ? String(thrown.code) : undefined;
}

function isDataplaneError(thrown: unknown): thrown is FerryError<DataplaneFault> {
  return thrown instanceof FerryError && thrown.code.startsWith('DATAPLANE_');
}

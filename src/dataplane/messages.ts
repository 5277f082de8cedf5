/** Everything that crosses the border of a channel's thread. It reads one message, its start; what it is asked to do then crosses in shared words. */
import type { SharedRam } from '../machine/index.ts';
import type { Line } from '../native/index.ts';
import type { DeviceAddress, MultifdCompression } from '../wire/multifd/index.ts';
import type { StateLoaderModule } from './device-state/loader.ts';
import type { SharedStateArena } from './device-state/state-arena.ts';
import type { SharedStateQueue } from './device-state/state-queue.ts';
import type { ChannelFault } from './errors.ts';

/** The methods that can be spoken here; the others have hardware of their own. */
export type PageCompression = Extract<MultifdCompression, 'none' | 'zlib' | 'zstd'>;

export interface ThreadStart {
  readonly channel: number;
  /** As `ps -T` and query-migrationthreads show it. */
  readonly name: string;
}

export interface ChannelStart extends ThreadStart {
  /** The thread's own from its first word on: it closes it. */
  readonly line: Line;
  readonly ram: SharedRam;
  readonly compression: PageCompression;
  /** Bytes of the channel that main has sent, or read, already. */
  readonly offset: number;
}

export interface SendStart extends ChannelStart {
  readonly ring: SharedArrayBuffer;
  /** Of the method. */
  readonly level: number;
  /** Look for zero pages and list them (9.0+), or send them like all others. */
  readonly findZeroPages: boolean;
  /** Devices whose state goes on these channels. */
  readonly state: { readonly devices: readonly DeviceAddress[]; readonly arena: SharedStateArena } | undefined;
}

export interface ReceiveStart extends ChannelStart {
  readonly cutIsEnd: boolean;
  /** Devices that send their state on these channels, and how receiving threads load it, where they do. */
  readonly state:
    | { readonly queue: SharedStateQueue; readonly loaders: readonly (StateLoaderModule | undefined)[] }
    | undefined;
}

/** A thread that copies pages; one of both is a file. */
export interface CopyStart extends ThreadStart {
  readonly from: SharedRam;
  readonly to: SharedRam;
  readonly ring: SharedArrayBuffer;
}

export type FromChannel =
  /** The thread is there and has its descriptor. */
  | { readonly kind: 'started' }
  /** Words have changed that main waits for. */
  | { readonly kind: 'moved' }
  /** The peer has ended the channel, after a whole packet. */
  | { readonly kind: 'ended' }
  | {
      readonly kind: 'failed';
      readonly fault: ChannelFault;
      readonly message: string;
      readonly cause: string | undefined;
    };

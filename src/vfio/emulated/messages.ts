/** Everything that crosses the border of a device's thread. */
import type { VfioFault } from '../errors.ts';
import type { SharedWindow } from './dma.ts';
import type { DeviceEvidence, EmulatedDevice } from './emulated-device.ts';
import type { VfOptions } from './options.ts';

export interface DeviceStart {
  readonly name: string;
  readonly options: VfOptions;
  readonly dmaIova: number;
}

/** Bytes in shared memory, where both sides can reach them. */
export interface SharedBytes {
  readonly memory: SharedArrayBuffer;
  readonly at: number;
  readonly length: number;
}

/** Those of the device's methods whose arguments and result cross as they are. */
type Plain =
  | 'state'
  | 'setState'
  | 'estimate'
  | 'precopyInfo'
  | 'stopCopySize'
  | 'startDmaLogging'
  | 'stopDmaLogging'
  | 'reset'
  | 'saveConfig'
  | 'loadConfig'
  | 'writeRegion';

/** What the device can be asked, and what it answers. */
export type DeviceCalls = {
  [M in Plain]: (...args: Parameters<EmulatedDevice[M]>) => Awaited<ReturnType<EmulatedDevice[M]>>;
} & {
  read: (into: SharedBytes) => number | 'nothing now' | 'end';
  write: (bytes: SharedBytes) => void;
  reportDmaLogging: (range: { iova: number; length: number }, pageSize: number, words: number) => Uint32Array;
  readRegion: (index: number, offset: number, length: number) => Uint8Array;
  attachWindow: (window: SharedWindow | undefined) => void;
  /** DMA goes out as messages, or nowhere. */
  attachMessages: (on: boolean) => void;
  attachPeer: (mailbox: SharedArrayBuffer | undefined) => void;
  evidence: () => DeviceEvidence;
};

export type ToDevice =
  | {
      [M in keyof DeviceCalls]: {
        readonly kind: 'call';
        readonly id: number;
        readonly method: M;
        readonly args: Parameters<DeviceCalls[M]>;
      };
    }[keyof DeviceCalls]
  /** A DMA write has been done, or refused. */
  | { readonly kind: 'dma-done'; readonly ok: boolean };

export interface Failure {
  readonly fault: VfioFault;
  readonly message: string;
}

export type FromDevice =
  | { readonly kind: 'started'; readonly mailbox: SharedArrayBuffer; readonly threadId: number }
  | ({ readonly kind: 'refused' } & Failure)
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | ({ readonly kind: 'failed'; readonly id: number } & Failure)
  /** `words`: int32 words to be stored at byte offsets of the page. */
  | {
      readonly kind: 'dma';
      readonly iova: number;
      readonly words: readonly (readonly [offset: number, word: number])[];
    };

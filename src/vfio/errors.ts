import { FerryError } from '../base/index.ts';
import type { DeviceState } from './states.ts';

/** Linux numbers, as the uAPI and vfio-user speak them. */
export const ERRNO = {
  ENOENT: 2,
  EIO: 5,
  E2BIG: 7,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  ENOSPC: 28,
  ETIME: 62,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
  ETIMEDOUT: 110,
} as const;

export function errnoName(errno: number): string {
  return Object.entries(ERRNO).find(([, number]) => number === errno)?.[0] ?? `errno ${errno}`;
}

export type DeviceOperation =
  | 'get state'
  | 'set state'
  | 'read data'
  | 'write data'
  | 'precopy info'
  | 'stop-copy size'
  | 'estimate'
  | 'start DMA logging'
  | 'stop DMA logging'
  | 'report DMA logging'
  | 'reset'
  | 'read region'
  | 'write region'
  | 'save config'
  | 'load config'
  | 'attach memory'
  | 'detach memory'
  | 'open'
  | 'close';

interface OfDevice {
  /** Name of the device, as its owner gave it. */
  readonly device: string;
  /** What the uAPI would have returned; Linux number. */
  readonly errno: number;
}

export type VfioFault =
  /** The device refused or failed an operation other than a transition; its state is what it was. */
  | (OfDevice & { readonly code: 'VFIO_OPERATION'; readonly operation: DeviceOperation })
  /** No legal path leads from the state it is in to the one asked for: EINVAL, nothing has happened. */
  | (OfDevice & { readonly code: 'VFIO_NO_PATH'; readonly from: DeviceState; readonly to: DeviceState })
  /** The arc from -> to failed; the device is in `state`, which is `from` or ERROR. Arcs before it on the path were gone. */
  | (OfDevice & {
      readonly code: 'VFIO_ARC_FAILED';
      readonly from: DeviceState;
      readonly to: DeviceState;
      readonly state: DeviceState;
    })
  /** ETIME: the device cannot promise to be through in time; nothing has happened. `neededMs`: what it takes, where it knows. */
  | (OfDevice & {
      readonly code: 'VFIO_DEADLINE_REFUSED';
      readonly deadlineMs: number;
      readonly neededMs: number | undefined;
    })
  /** ETIMEDOUT: it did not get through in time, and was back in `state`, the one it came from, by the deadline. */
  | (OfDevice & { readonly code: 'VFIO_DEADLINE_MISSED'; readonly deadlineMs: number; readonly state: DeviceState })
  /** ETIMEDOUT: no answer in `deadlineMs`; the device was given up. */
  | (OfDevice & { readonly code: 'VFIO_SILENT'; readonly operation: DeviceOperation; readonly deadlineMs: number })
  /** A stream that ended without all of the device, or with a device that is not there. */
  | (OfDevice & { readonly code: 'VFIO_INCOMPLETE'; readonly missing: string })
  /** ENODEV: the stream has a device that this machine has not. */
  | (OfDevice & { readonly code: 'VFIO_UNKNOWN' })
  /** A parameter of an emulated device, or a fault to inject, that cannot be. */
  | (OfDevice & { readonly code: 'VFIO_OPTION'; readonly option: string; readonly found: string })
  /** ENODEV: the device, its thread or the connection to it is gone, or it was closed. */
  | (OfDevice & { readonly code: 'VFIO_GONE'; readonly operation: DeviceOperation });

export type VfioError = FerryError<VfioFault>;

export function vfioError(fault: VfioFault, message: string, cause?: unknown): VfioError {
  return new FerryError(fault, message, cause);
}

export function isVfioError(thrown: unknown): thrown is VfioError {
  return thrown instanceof FerryError && thrown.code.startsWith('VFIO_');
}

export function operationFailed(device: string, operation: DeviceOperation, errno: number, why: string): VfioError {
  return vfioError(
    { code: 'VFIO_OPERATION', device, operation, errno },
    `${device}: ${operation}: ${why} (${errnoName(errno)})`,
  );
}

export function deviceGone(device: string, operation: DeviceOperation, cause?: unknown): VfioError {
  const fault = { code: 'VFIO_GONE', device, operation, errno: ERRNO.ENODEV } as const;
  return vfioError(fault, `${device}: ${operation}: the device is gone`, cause);
}

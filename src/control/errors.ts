import { explain, FerryError } from '../base/index.ts';

/** QapiErrorClass of qapi/error.json. */
export type QmpErrorClass = 'GenericError' | 'CommandNotFound' | 'DeviceNotActive' | 'DeviceNotFound' | 'KVMMissingCap';

export type ControlFault =
  /** A request is refused; the message is the `desc` the client reads. */
  | { readonly code: 'QMP_REFUSED'; readonly errorClass: QmpErrorClass }
  /** The place to listen at cannot be had. */
  | { readonly code: 'QMP_LISTEN'; readonly address: string };

/** A refusal with QEMU's error class; anything else that a command throws is a GenericError. */
export function refuse(errorClass: QmpErrorClass, desc: string): FerryError<ControlFault> {
  return new FerryError<ControlFault>({ code: 'QMP_REFUSED', errorClass }, desc);
}

export function listenError(address: string, problem: string, cause?: unknown): FerryError<ControlFault> {
  return new FerryError<ControlFault>({ code: 'QMP_LISTEN', address }, `QMP socket ${address}: ${problem}`, cause);
}

/** The `error` member of a reply. */
export function errorReply(thrown: unknown): { class: QmpErrorClass; desc: string } {
  const refusal =
    thrown instanceof FerryError && thrown.code === 'QMP_REFUSED' ? (thrown.fault as ControlFault) : undefined;
  return {
    class: refusal?.code === 'QMP_REFUSED' ? refusal.errorClass : 'GenericError',
    desc: explain(thrown),
  };
}

import { FerryError } from '../base/index.ts';

/** What may go wrong with a QMP peer or a QEMU process. `peer` is its label, usually the socket's path. */
export type QemuFault =
  | { readonly code: 'QMP_CONNECT_FAILED'; readonly peer: string }
  | { readonly code: 'QMP_CLOSED'; readonly peer: string }
  | { readonly code: 'QMP_MALFORMED'; readonly peer: string }
  | { readonly code: 'QMP_TIMEOUT'; readonly peer: string; readonly waitingFor: string; readonly timeoutMs: number }
  | { readonly code: 'QMP_ABORTED'; readonly peer: string; readonly waitingFor: string }
  | QmpRefusal
  | { readonly code: 'QMP_MIGRATION_ENDED'; readonly peer: string; readonly status: string; readonly desc: string }
  | { readonly code: 'QEMU_NOT_FOUND'; readonly wanted: string }
  | { readonly code: 'QEMU_DIED'; readonly peer: string; readonly status: string; readonly stderr: string };

interface QmpRefusal {
  readonly code: 'QMP_REFUSED';
  readonly peer: string;
  readonly command: string;
  readonly class: string;
  readonly desc: string;
}

/** The peer answered a command with an error. `class` is QEMU's error class (GenericError, CommandNotFound, ...). */
export class QmpError extends FerryError<QmpRefusal> {
  constructor(peer: string, command: string, errorClass: string, desc: string) {
    super({ code: 'QMP_REFUSED', peer, command, class: errorClass, desc }, `${peer}: ${command} refused: ${desc}`);
    this.name = 'QmpError';
  }

  get class(): string {
    return this.fault.class;
  }

  get desc(): string {
    return this.fault.desc;
  }

  get command(): string {
    return this.fault.command;
  }
}

import { assert, type Reader, unreachable } from '../../base/index.ts';
import { unexpected, unsupported } from '../errors.ts';
import type { Command } from './events.ts';

/** States of the destination that commands lead through (PostcopyState of QEMU, without its end); paused: between two connections. */
export type PostcopyPhase = 'none' | 'advised' | 'discarding' | 'listening' | 'running' | 'paused';

/** Which command may come when. */
export class CommandOrder {
  #phase: PostcopyPhase = 'none';
  #returnPathOpen = false;
  #switchoverStarted = false;
  #pageSizeSummary: bigint | undefined;

  get phase(): PostcopyPhase {
    return this.#phase;
  }

  /** Of POSTCOPY_ADVISE with postcopy-ram: OR of all host page sizes. */
  get pageSizeSummary(): bigint | undefined {
    return this.#pageSizeSummary;
  }

  /** Takes the command at stream offset `at`; throws if it may not come now. */
  take(reader: Reader, command: Command, at: number, inPackage: boolean): void {
    const refuse = (expected: string, found: string) =>
      unexpected(reader, at, `command ${command.name}`, 'command', expected, found);
    const from = (...phases: PostcopyPhase[]) => {
      if (!phases.includes(this.#phase)) throw refuse(`postcopy phase ${phases.join(' or ')}`, this.#phase);
    };
    const packaged = 'POSTCOPY_LISTEN PING POSTCOPY_RUN';
    if (inPackage && !packaged.includes(command.name)) throw refuse(`one of ${packaged} in a package`, command.name);
    switch (command.name) {
      case 'OPEN_RETURN_PATH':
        // QEMU only warns about a second one.
        this.#returnPathOpen = true;
        return;
      case 'PING':
        if (!this.#returnPathOpen) throw refuse('an open return path', 'none');
        return;
      case 'POSTCOPY_ADVISE':
        from('none');
        this.#phase = 'advised';
        this.#pageSizeSummary = command.pageSizes?.summary;
        return;
      case 'POSTCOPY_RAM_DISCARD':
        from('advised', 'discarding');
        this.#phase = 'discarding';
        return;
      case 'PACKAGED':
        from('advised', 'discarding');
        return;
      case 'POSTCOPY_LISTEN':
        from('advised', 'discarding');
        this.#phase = 'listening';
        return;
      case 'POSTCOPY_RUN':
        from('listening');
        this.#phase = 'running';
        return;
      case 'SWITCHOVER_START':
        if (this.#switchoverStarted) throw refuse('it once', 'a second one');
        this.#switchoverStarted = true;
        return;
      case 'ENABLE_COLO':
        throw unsupported(reader, at, 'command ENABLE_COLO', 'capability x-colo', 'ENABLE_COLO');
      case 'RECV_BITMAP':
        from('paused');
        return;
      case 'POSTCOPY_RESUME':
        from('paused');
        this.#phase = 'running';
        return;
      default:
        unreachable(command);
    }
  }

  /** The stream goes on over a new connection. */
  pause(): void {
    assert(this.#phase === 'running' || this.#phase === 'paused', 'only a running postcopy can be recovered');
    this.#phase = 'paused';
  }
}

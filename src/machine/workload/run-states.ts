import { type Arcs, type Move, StateMachine } from '../../base/index.ts';
import type { RunState } from '../machine.ts';
import { workloadError } from './errors.ts';

const ARCS: Arcs<RunState> = {
  prelaunch: ['running', 'paused', 'finish-migrate', 'inmigrate', 'shutdown', 'internal-error'],
  inmigrate: ['running', 'paused', 'prelaunch', 'postmigrate', 'shutdown', 'internal-error'],
  running: ['paused', 'finish-migrate', 'shutdown', 'internal-error'],
  paused: ['running', 'finish-migrate', 'postmigrate', 'inmigrate', 'shutdown', 'internal-error'],
  'finish-migrate': ['running', 'paused', 'prelaunch', 'postmigrate', 'shutdown', 'internal-error'],
  postmigrate: ['running', 'paused', 'finish-migrate', 'inmigrate', 'shutdown', 'internal-error'],
  shutdown: ['paused', 'finish-migrate', 'postmigrate', 'inmigrate', 'internal-error'],
  'internal-error': ['shutdown'],
};

/** The run state of a machine, what it may do in it, and what a migration has interrupted. */
export class RunStates {
  readonly #machine: StateMachine<RunState>;
  readonly #moved: (move: Move<RunState>) => void;
  /** Run state that finish-migrate interrupted, until the machine goes on here. */
  #interrupted: RunState | undefined;

  /** `moved` is called after every move but a failure, synchronously. */
  constructor(initial: RunState, moved: (move: Move<RunState>) => void) {
    this.#machine = new StateMachine<RunState>(initial, ARCS);
    this.#moved = moved;
  }

  get state(): RunState {
    return this.#machine.state;
  }

  /** What the destination of a migration shall go on with. */
  get toGoOnWith(): RunState {
    return this.#interrupted ?? this.state;
  }

  /** Throws WORKLOAD_RUN_STATE if it cannot. */
  move(to: RunState, operation: string): void {
    const from = this.state;
    if (from === to) return;
    if (!this.#machine.can(to)) this.refuse(operation);
    if (to === 'finish-migrate') this.#interrupted = from;
    else if (to !== 'postmigrate') this.#interrupted = undefined;
    this.#machine.move(to);
    this.#moved({ from, to });
  }

  /** The guest cannot go on; in inmigrate there is none yet. */
  fail(): void {
    if (this.state !== 'inmigrate') this.#machine.move('internal-error');
  }

  /** Throws WORKLOAD_RUN_STATE. */
  refuse(operation: string): never {
    const runState = this.state;
    throw workloadError(
      { code: 'WORKLOAD_RUN_STATE', operation, runState },
      `the machine is in state ${runState}: it cannot ${operation}`,
    );
  }
}

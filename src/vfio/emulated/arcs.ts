import { ERRNO } from '../errors.ts';
import type { Arc, DeviceState } from '../states.ts';
import { ArcFailure, type ArcWork, type UndoArc } from '../transitions.ts';
import { arcPoint, type Faults, NEVER } from './faults.ts';
import type { Activity, Hardware } from './hardware.ts';
import type { VfOptions } from './options.ts';
import type { DeviceClock } from './pace.ts';
import type { Sessions } from './sessions.ts';

const ACTIVITY: Readonly<Record<DeviceState, Activity>> = {
  ERROR: 'none',
  STOP: 'none',
  RUNNING: 'all',
  STOP_COPY: 'none',
  RESUMING: 'none',
  RUNNING_P2P: 'no DMA',
  PRE_COPY: 'all',
  PRE_COPY_P2P: 'no DMA',
};
const MORE: readonly Activity[] = ['none', 'no DMA', 'all'];

export interface ArcParts {
  readonly hardware: Hardware;
  readonly sessions: Sessions;
  readonly options: VfOptions;
  readonly faults: Faults;
  readonly clock: DeviceClock;
  /** Does what is due. */
  readonly tick: () => void;
  /** Ends the thread (fault `die`). */
  readonly die: () => void;
}

/** What an emulated VF does on an arc: quieten first, then time passes, then it takes effect. */
export class EmulatedArcs implements ArcWork {
  readonly #parts: ArcParts;

  constructor(parts: ArcParts) {
    this.#parts = parts;
  }

  costMs(arc: Arc): number {
    const { options } = this.#parts;
    return options.arcs[`${arc.from}>${arc.to}`] ?? options['arc-ms'];
  }

  undoMs(arc: Arc): number {
    return this.costMs(arc);
  }

  async work(arc: Arc, until: number): Promise<UndoArc> {
    const { hardware, sessions, clock, tick } = this.#parts;
    const before = hardware.activity;
    const after = ACTIVITY[arc.to];
    tick();
    hardware.act(MORE[Math.min(MORE.indexOf(before), MORE.indexOf(after))]!);
    try {
      await this.#spend(arc, until);
      const undo = sessions.follow(arc);
      hardware.act(after);
      return async () => {
        await clock.sleep(clock.now() + this.costMs(arc));
        undo();
        hardware.act(before);
      };
    } catch (thrown) {
      const broken = thrown instanceof ArcFailure && thrown.kind === 'broken';
      if (broken) sessions.end();
      hardware.act(broken ? 'none' : before);
      throw thrown;
    }
  }

  async #spend(arc: Arc, until: number): Promise<void> {
    const { hardware, faults, clock, die } = this.#parts;
    const fault = faults.pass(arcPoint(arc));
    const neededMs = this.costMs(arc) + (fault?.kind === 'slow' ? fault.ms : 0);
    const late = new ArcFailure('out of time', ERRNO.ETIMEDOUT, 'it takes longer than there is time');
    if (fault?.kind === 'die') die();
    if (fault?.kind === 'die' || (fault?.kind === 'hang' && until === Number.POSITIVE_INFINITY)) await NEVER;
    // A surprise is one: the device finds out when the time is up.
    const now = clock.now();
    const endsAt = fault?.kind === 'hang' ? Number.POSITIVE_INFINITY : now + neededMs;
    if (now + this.costMs(arc) > until) throw late;
    await clock.sleep(Math.min(endsAt, until));
    if (endsAt > until) throw late;
    if (fault?.kind === 'fail') throw new ArcFailure('unchanged', fault.errno, 'the device refused');
    if (fault?.kind === 'break') throw new ArcFailure('broken', fault.errno, 'the device failed');
    if (hardware.activity !== 'all') await hardware.drained();
  }
}

import { nowMs } from '../../base/index.ts';
import type { SourceMachine, SwitchoverCost } from '../../machine/index.ts';
import { PING_LOAD_COST } from '../return-path.ts';
import type { ReturnPathReader } from './return-path-reader.ts';
import type { StreamWriter } from './stream-writer.ts';

/** A destination may be at work, and then answers when it is through; no longer than this is waited for what can be assumed too, ms. */
const FIRST_ANSWER_MS = 2_000;
const NOTHING: SwitchoverCost = { stopMs: 0, load: { ms: 0, bytesPerMs: Number.POSITIVE_INFINITY } };

/**
 * What the switchover costs beside bytes. What loading takes is best known to the destination: a vmferry tells when it is asked; any other, or one
 * that does not tell in time, is assumed to be like this side.
 */
export class SwitchoverCosts {
  readonly #machine: SourceMachine;
  readonly #returnPath: ReturnPathReader | undefined;
  #own = NOTHING;
  #asked = false;
  readonly #sinceMs = nowMs();

  constructor(machine: SourceMachine, returnPath: ReturnPathReader | undefined) {
    this.#machine = machine;
    this.#returnPath = returnPath;
  }

  /** As last known. */
  get known(): SwitchoverCost {
    const load = this.#returnPath?.loadCost;
    return load === undefined ? this.#own : { ...this.#own, load };
  }

  /** All is known that will be known before it matters. */
  get settled(): boolean {
    const returnPath = this.#returnPath;
    if (returnPath === undefined || this.#machine.switchoverCost === undefined) return true;
    if (returnPath.peer === 'other' || returnPath.loadCost !== undefined) return true;
    return nowMs() - this.#sinceMs > FIRST_ANSWER_MS;
  }

  /** Asks this side's devices. */
  async refresh(): Promise<void> {
    this.#own = (await this.#machine.switchoverCost?.()) ?? NOTHING;
  }

  /** Asks the destination, unless an answer is on its way; between sections. */
  async ask(stream: StreamWriter): Promise<void> {
    const returnPath = this.#returnPath;
    if (returnPath?.peer !== 'vmferry' || this.#asked || this.#machine.switchoverCost === undefined) return;
    this.#asked = true;
    returnPath.pong(PING_LOAD_COST).then(
      () => {
        this.#asked = false;
      },
      () => {},
    );
    await stream.ping(PING_LOAD_COST);
  }
}

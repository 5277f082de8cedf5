import { nowMs } from '../../base/index.ts';
import type { LoadCost, SourceMachine, SwitchoverCost } from '../../machine/index.ts';
import { PING_LOAD_COST } from '../return-path.ts';
import type { ReturnPathReader } from './return-path-reader.ts';
import type { StreamWriter } from './stream-writer.ts';

/** A destination may be at work, and then answers when it is through; no longer than this is waited for what can be assumed too, ms. */
const FIRST_ANSWER_MS = 2_000;
const NOTHING: SwitchoverCost = { stopMs: 0, load: { ms: 0, bytesPerMs: Number.POSITIVE_INFINITY } };

/**
 * What the switchover costs beside bytes. What loading takes is best known to the destination: a vmferry tells in the handshake, and when it is asked; any
 * other, or one that does not tell in time, is assumed to be like this side. A QEMU loads the configurations of devices one after the other.
 */
export class SwitchoverCosts {
  readonly #machine: SourceMachine;
  readonly #returnPath: ReturnPathReader | undefined;
  #own = NOTHING;
  #asked = false;
  readonly #told: LoadCost | undefined;
  readonly #sinceMs = nowMs();

  /** `told`: what loading costs, as the destination has said before. */
  constructor(machine: SourceMachine, returnPath: ReturnPathReader | undefined, told: LoadCost | undefined) {
    this.#machine = machine;
    this.#returnPath = returnPath;
    this.#told = told;
  }

  /** As last known. */
  get known(): SwitchoverCost {
    const load = this.#returnPath?.loadCost ?? this.#told;
    return load === undefined ? this.#own : { ...this.#own, load };
  }

  /** All is known that will be known before it matters. */
  get settled(): boolean {
    const returnPath = this.#returnPath;
    if (returnPath === undefined || this.#machine.switchoverCost === undefined) return true;
    if (this.#told !== undefined) return true;
    if (returnPath.peer === 'other' || returnPath.loadCost !== undefined) return true;
    return nowMs() - this.#sinceMs > FIRST_ANSWER_MS;
  }

  /** Asks this side's devices. */
  async refresh(): Promise<void> {
    const order = this.#returnPath?.peer === 'other' ? 'serial' : 'parallel';
    this.#own = (await this.#machine.switchoverCost?.(order)) ?? NOTHING;
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

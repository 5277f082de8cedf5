import type { SourceMachine, SwitchoverCost } from '../../machine/index.ts';
import { PING_LOAD_COST } from '../return-path.ts';
import type { ReturnPathReader } from './return-path-reader.ts';
import type { StreamWriter } from './stream-writer.ts';

const NOTHING: SwitchoverCost = { stopMs: 0, load: { ms: 0, bytesPerMs: Number.POSITIVE_INFINITY } };

/**
 * What the switchover costs beside bytes. What loading takes is best known to the destination: a vmferry tells when it is asked; of any other, and
 * until the first answer, it is assumed to be like this side.
 */
export class SwitchoverCosts {
  readonly #machine: SourceMachine;
  readonly #returnPath: ReturnPathReader | undefined;
  #own = NOTHING;
  #asked = false;

  constructor(machine: SourceMachine, returnPath: ReturnPathReader | undefined) {
    this.#machine = machine;
    this.#returnPath = returnPath;
  }

  /** As last known. */
  get known(): SwitchoverCost {
    const load = this.#returnPath?.loadCost;
    return load === undefined ? this.#own : { ...this.#own, load };
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

import { asError } from '../../base/index.ts';
import { ERRNO } from '../errors.ts';
import { type Arc, sessionOf } from '../states.ts';
import { ArcFailure } from '../transitions.ts';
import type { Hardware } from './hardware.ts';
import { Loader } from './loader.ts';
import { initialBytesOf, type VfOptions } from './options.ts';
import type { DeviceClock } from './pace.ts';
import { Saver } from './saver.ts';

/** The data session of an emulated VF, which its arcs begin and end: it saves or loads, or there is none. */
export class Sessions {
  readonly #hardware: Hardware;
  readonly #options: VfOptions;
  readonly #clock: DeviceClock;
  #saver: Saver | undefined;
  #loader: Loader | undefined;
  /** When the initial data of this session will be new, on the clock; undefined: so long after what there is now is out. */
  #renewsAt: number | undefined;
  #allocated = false;

  constructor(hardware: Hardware, options: VfOptions, clock: DeviceClock) {
    this.#hardware = hardware;
    this.#options = options;
    this.#clock = clock;
  }

  get saver(): Saver | undefined {
    return this.#saver;
  }

  get loader(): Loader | undefined {
    return this.#loader;
  }

  /**
   * An arc takes effect: sessions begin and end, what was loaded is adopted. Returns how to take it back. Throws ArcFailure: a stream that is
   * not whole leaves the device in RESUMING.
   */
  follow(arc: Arc): () => void {
    const saver = this.#saver;
    const loader = this.#loader;
    const renewsAt = this.#renewsAt;
    const undo = () => {
      this.#saver = saver;
      this.#loader = loader;
      this.#renewsAt = renewsAt;
      if (arc.from !== 'STOP' && arc.to === 'STOP_COPY') saver?.unstop();
    };
    const from = sessionOf(arc.from);
    const to = sessionOf(arc.to);
    if (from === 'loading' && to === undefined) this.#adopt(loader!);
    if (from !== to) {
      this.#saver = to === 'saving' ? this.#newSaver() : undefined;
      this.#loader = to === 'loading' ? new Loader(this.#hardware.state, this.#options['dma-size']) : undefined;
      this.#allocated = false;
      this.#renewsAt = undefined;
    }
    if (arc.to === 'STOP_COPY') this.#saver!.stop();
    return undo;
  }

  /** Whether the device has to allocate now what it loads into: once a session, when the first data has come. */
  allocates(): boolean {
    if (this.#allocated || !this.#loader?.begun) return false;
    this.#allocated = true;
    return true;
  }

  /** Initial data gets new when its time has come; called often. */
  renew(): void {
    const renewMs = this.#options['reinit-ms'];
    const saver = this.#saver;
    if (renewMs <= 0 || saver === undefined || this.#hardware.activity === 'none') return;
    const now = this.#clock.now();
    if (this.#renewsAt === undefined && saver.initialBytes === 0) this.#renewsAt = now + renewMs;
    if (this.#renewsAt === undefined || now < this.#renewsAt) return;
    this.#renewsAt = Number.POSITIVE_INFINITY;
    saver.renew();
  }

  end(): void {
    this.#saver = undefined;
    this.#loader = undefined;
  }

  #newSaver(): Saver {
    const options = this.#options;
    return new Saver(this.#hardware.state, initialBytesOf(options), options['dma-size'], () =>
      this.#hardware.registers(),
    );
  }

  #adopt(loader: Loader): void {
    try {
      loader.finish();
    } catch (thrown) {
      throw new ArcFailure('unchanged', ERRNO.EINVAL, asError(thrown).message);
    }
    this.#hardware.adopt(loader.registers!);
  }
}

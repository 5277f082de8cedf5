import { type DeviceOperation, deviceGone } from '../errors.ts';

/** Calls of a device: one after the other in the order in which they were made, all ended by `close`. */
export class CallQueue {
  readonly #name: string;
  #last: Promise<unknown> = Promise.resolve();
  /** Calls that have not been answered, by how to fail them. */
  readonly #calls = new Map<(error: Error) => void, DeviceOperation>();
  #closed = false;

  /** `name`: of the device. */
  constructor(name: string) {
    this.#name = name;
  }

  /** Settles as `run`, which is not called once the queue is closed. Throws VFIO_GONE. */
  serve<T>(operation: DeviceOperation, run: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(deviceGone(this.#name, operation));
    return new Promise((resolve, reject) => {
      this.#calls.set(reject, operation);
      const served = this.#last.then(async () => {
        if (!this.#closed) resolve(await run());
      });
      this.#last = served.catch(reject).finally(() => this.#calls.delete(reject));
    });
  }

  /** Whoever waits hears VFIO_GONE, also if the device never answers. */
  close(): void {
    this.#closed = true;
    for (const [fail, operation] of this.#calls) fail(deviceGone(this.#name, operation));
  }
}

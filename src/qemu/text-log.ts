import { FerryError } from '../base/index.ts';
import type { QemuFault } from './errors.ts';

/** Text that grows (a serial console), and waiting for something to stand in it. */
export class TextLog {
  #text = '';
  #ended: Error | undefined;
  readonly #changed = new Set<() => void>();

  get text(): string {
    return this.#text;
  }

  append(text: string): void {
    this.#text += text;
    for (const changed of [...this.#changed]) changed();
  }

  /** Nothing will follow, for this reason. */
  end(reason: Error): void {
    this.#ended ??= reason;
    for (const changed of [...this.#changed]) changed();
  }

  /** The first defined value that `find` makes of the whole text, now or later. Throws what `find` throws, QMP_TIMEOUT, or the reason of the log's end. */
  waitFor<T>(find: (text: string) => T | undefined, what: string, timeoutMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        clearTimeout(timer);
        this.#changed.delete(look);
        act();
      };
      const look = () => {
        try {
          const value = find(this.#text);
          const ended = this.#ended;
          if (value !== undefined) settle(() => resolve(value));
          else if (ended !== undefined) settle(() => reject(ended));
        } catch (thrown) {
          settle(() => reject(thrown));
        }
      };
      const timer = setTimeout(() => {
        const fault: QemuFault = { code: 'QMP_TIMEOUT', peer: 'console', waitingFor: what, timeoutMs };
        settle(() =>
          reject(
            new FerryError(fault, `console: ${what} did not come within ${timeoutMs} ms; last: ${tail(this.#text)}`),
          ),
        );
      }, timeoutMs);
      this.#changed.add(look);
      look();
    });
  }
}

function tail(text: string): string {
  return JSON.stringify(text.slice(-200));
}

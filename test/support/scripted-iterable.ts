/** A device by script on its way out: so many blocks of initial data, then so many times new ones. */
import { Writer } from '../../src/base/index.ts';
import type { InitialData, PendingBytes, SourceIterable } from '../../src/machine/index.ts';
import { encodeVfioData, encodeVfioTag } from '../../src/wire/index.ts';

const BLOCK = Buffer.alloc(4096, 0xda);

export class ScriptedIterable implements SourceIterable {
  readonly idstr: string;
  readonly instance = 0;
  readonly version = 1;
  readonly #own: boolean;
  #blocks: number;
  #renewals: number;
  #switchoverAck = false;
  #announced = 0;
  #said = false;

  /** `blocks` 0: it has no initial data. `renewals`: how often new initial data comes up when the last was announced. */
  constructor(idstr: string, blocks: number, renewals = 0) {
    this.idstr = idstr;
    this.#own = blocks > 0;
    this.#blocks = blocks;
    this.#renewals = renewals;
  }

  get initialData(): InitialData | undefined {
    return this.#switchoverAck ? { own: this.#own, announced: this.#announced, isDue: !this.#said } : undefined;
  }

  async setup({ switchoverAck }: { readonly switchoverAck: boolean }): Promise<Uint8Array> {
    this.#switchoverAck = switchoverAck;
    return body((writer) => encodeVfioTag(writer, 'DEV_SETUP_STATE'));
  }

  async pending(exact: boolean): Promise<PendingBytes> {
    if (exact && this.#said && this.#own && this.#renewals > 0) {
      this.#renewals--;
      this.#blocks = 1;
      this.#said = false;
    }
    return { precopy: this.#blocks * BLOCK.length, stopCopy: 0 };
  }

  async iterate(announce: boolean): Promise<Uint8Array | undefined> {
    const data = this.#blocks > 0;
    if (data) this.#blocks--;
    const announces = announce && !this.#said && this.#blocks === 0;
    if (announces) {
      this.#said = true;
      this.#announced++;
    }
    if (!data && !announces) return undefined;
    const write = (writer: Writer) => {
      if (!data) return;
      encodeVfioData(writer, BLOCK.length);
      writer.raw(BLOCK);
    };
    return body(write, announces ? 'DEV_INIT_DATA_SENT' : 'END_OF_STATE');
  }

  async complete(put: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    await put(body(() => {}));
  }

  async cleanup(): Promise<void> {}
}

function body(
  write: (writer: Writer) => void,
  end: 'END_OF_STATE' | 'DEV_INIT_DATA_SENT' = 'END_OF_STATE',
): Uint8Array {
  const writer = new Writer();
  write(writer);
  encodeVfioTag(writer, end);
  return Buffer.from(writer.bytes());
}

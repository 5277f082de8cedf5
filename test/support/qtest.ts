/** The qtest protocol of QEMU (-accel qtest): a test does what a guest's processor would, one access a line. */
import type { Duplex } from 'node:stream';
import { TextLog } from '../../src/qemu/index.ts';

const ANSWER_MS = 20_000;
/** PCI configuration by the old ports: address, data. */
const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;

export class Qtest {
  readonly #stream: Duplex;
  readonly #log = new TextLog();
  #answers = 0;

  /** `stream`: our end of the chardev of -qtest. */
  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', (bytes: Buffer) => this.#log.append(bytes.toString()));
    stream.on('close', () => this.#log.end(new Error('the qtest connection is over')));
  }

  async write(address: number, bytes: Buffer): Promise<void> {
    await this.#ask(`write 0x${address.toString(16)} 0x${bytes.length.toString(16)} 0x${bytes.toString('hex')}`);
  }

  async read(address: number, length: number): Promise<Buffer> {
    return Buffer.from((await this.#ask(`read 0x${address.toString(16)} 0x${length.toString(16)}`)).slice(2), 'hex');
  }

  /** A store of 8 bytes at once, as a processor does it. */
  async writeq(address: number, value: number): Promise<void> {
    await this.#ask(`writeq 0x${address.toString(16)} 0x${value.toString(16)}`);
  }

  /** A word of 4 bytes of the configuration space of bus 0, function 0. */
  async config(slot: number, offset: number): Promise<number> {
    await this.#select(slot, offset);
    return Number(await this.#ask(`inl 0x${CONFIG_DATA.toString(16)}`));
  }

  async setConfig(slot: number, offset: number, value: number): Promise<void> {
    await this.#select(slot, offset);
    await this.#ask(`outl 0x${CONFIG_DATA.toString(16)} 0x${value.toString(16)}`);
  }

  async #select(slot: number, offset: number): Promise<void> {
    const address = 0x8000_0000 + (slot << 11) + offset;
    await this.#ask(`outl 0x${CONFIG_ADDRESS.toString(16)} 0x${address.toString(16)}`);
  }

  /** What stands behind the OK of the answer. */
  async #ask(line: string): Promise<string> {
    const nth = this.#answers++;
    this.#stream.write(`${line}\n`);
    const answer = await this.#log.waitFor(
      (text) =>
        text
          .split('\n')
          .slice(0, -1)
          .filter((said) => !said.startsWith('IRQ'))[nth],
      `an answer to ${line.slice(0, 40)}`,
      ANSWER_MS,
    );
    if (!answer.startsWith('OK')) throw new Error(`${line.slice(0, 40)}: ${answer}`);
    return answer.slice(3);
  }
}

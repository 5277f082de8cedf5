/**
 * The configuration space of a device behind a server as its guest has set it up. It is kept here as well: while the state of the device is
 * read out, a server may refuse to be asked.
 */
import { vfioUser } from '../../wire/index.ts';
import {
  COMMAND_BUS_MASTER,
  COMMAND_MEMORY,
  CONFIG_SPACE_BYTES,
  ConfigAt,
  decodeConfig,
  encodeConfig,
} from '../config-space.ts';
import type { RemoteFunction } from './remote-function.ts';

const { CONFIG } = vfioUser.PCI_REGION;

export class GuestConfig {
  readonly #function: RemoteFunction;
  readonly #space: Buffer;

  /** A device without a whole configuration space has none that could be kept. */
  static async ask(fn: RemoteFunction): Promise<GuestConfig> {
    const size = fn.regions.find(({ index }) => index === CONFIG)?.size ?? 0;
    const space = Buffer.alloc(size < CONFIG_SPACE_BYTES ? 0 : CONFIG_SPACE_BYTES);
    if (space.length > 0) await fn.readRegion(CONFIG, 0, space);
    return new GuestConfig(fn, space);
  }

  private constructor(fn: RemoteFunction, space: Buffer) {
    this.#function = fn;
    this.#space = space;
  }

  /** As a driver does it: the device's regions answer, and it may reach guest memory. */
  async enable(): Promise<void> {
    if (this.#space.length === 0) return;
    const command = this.#space.readUInt16LE(ConfigAt.COMMAND) | COMMAND_MEMORY | COMMAND_BUS_MASTER;
    this.#space.writeUInt16LE(command, ConfigAt.COMMAND);
    await this.#write(ConfigAt.COMMAND, 2);
  }

  save(): Buffer {
    return this.#space.length === 0 ? this.#space : encodeConfig(this.#space);
  }

  /** Returns why it cannot be that of this device; undefined: the device has it. */
  async load(saved: Buffer): Promise<string | undefined> {
    if (this.#space.length === 0) return saved.length === 0 ? undefined : 'it has no configuration space';
    const space = decodeConfig(saved, this.#space);
    if (typeof space === 'string') return space;
    space.copy(this.#space);
    await this.#write(ConfigAt.BAR0, ConfigAt.BARS_END - ConfigAt.BAR0);
    await this.#write(ConfigAt.INTERRUPT_LINE, 1);
    // Last: with it the device answers at these addresses.
    await this.#write(ConfigAt.COMMAND, 2);
    return undefined;
  }

  async #write(at: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += 4) {
      await this.#function.writeRegion(
        CONFIG,
        at + done,
        this.#space.subarray(at + done, at + Math.min(length, done + 4)),
      );
    }
  }
}

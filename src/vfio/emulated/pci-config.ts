/** Configuration space of the emulated VF. */
import { CONFIG_SPACE_BYTES, ConfigAt, decodeConfig, encodeConfig } from '../config-space.ts';
import { BAR_BYTES } from './stream-format.ts';

/** Nobody's: a VF that exists nowhere. */
const VENDOR_ID = 0xfe44;
const DEVICE_ID = 0x0f0e;
const CLASS_ETHERNET = 0x0200;
/** What a guest may change: command, BAR 0, interrupt line. */
const WRITABLE: readonly (readonly [from: number, to: number])[] = [
  [ConfigAt.COMMAND, ConfigAt.COMMAND + 2],
  [ConfigAt.BAR0, ConfigAt.BAR0 + 4],
  [ConfigAt.INTERRUPT_LINE, ConfigAt.INTERRUPT_LINE + 1],
];

export class PciConfig {
  readonly bytes = Buffer.alloc(CONFIG_SPACE_BYTES);
  readonly #subsystem: number;

  /** `subsystem`: tells devices apart. */
  constructor(subsystem: number) {
    this.#subsystem = subsystem & 0xffff;
    this.reset();
  }

  reset(): void {
    const { bytes } = this;
    bytes.fill(0);
    bytes.writeUInt16LE(VENDOR_ID, ConfigAt.VENDOR);
    bytes.writeUInt16LE(DEVICE_ID, ConfigAt.DEVICE);
    bytes.writeUInt16LE(CLASS_ETHERNET, ConfigAt.CLASS);
    bytes.writeUInt16LE(VENDOR_ID, ConfigAt.SUBSYSTEM);
    bytes.writeUInt16LE(this.#subsystem, ConfigAt.SUBSYSTEM + 2);
    bytes[ConfigAt.INTERRUPT_PIN] = 1;
  }

  /** As a guest does it: read-only bytes stay, the size of BAR 0 shows in the bits that stay clear. */
  write(offset: number, values: Buffer): void {
    for (const [index, value] of values.entries()) {
      const at = offset + index;
      if (WRITABLE.some(([from, to]) => at >= from && at < to)) this.bytes[at] = value;
    }
    this.bytes.writeInt32LE(this.bytes.readInt32LE(ConfigAt.BAR0) & -BAR_BYTES, ConfigAt.BAR0);
  }

  save(): Buffer {
    return encodeConfig(this.bytes);
  }

  /** Returns why these bytes are no configuration of this device; undefined: they were taken. */
  load(saved: Buffer): string | undefined {
    const space = decodeConfig(saved, this.bytes);
    if (typeof space === 'string') return space;
    space.copy(this.bytes);
    return undefined;
  }
}

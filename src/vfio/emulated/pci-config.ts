/**
 * Configuration of a PCI device as a VMM keeps it: config space and interrupt pins. What a VFIO device's section carries of it is
 * QEMU's VFIOPCIDevice, version 1, of a device without MSI-X:
 *
 * ```
 * i32 2   256 bytes of configuration space   4 * u32 level of an interrupt pin          276 bytes, big endian
 * ```
 * @spec qemu hw/vfio/pci.c (vmstate_vfio_pci_config), hw/pci/pci.c (vmstate_pci_device)
 */
import { BAR_BYTES } from './stream-format.ts';

export const CONFIG_SPACE_BYTES = 256;
const PCI_VERSION = 2;
const PINS = 4;
export const PCI_CONFIG_BYTES = 4 + CONFIG_SPACE_BYTES + 4 * PINS;

/** Where things are in configuration space. */
const At = {
  VENDOR: 0,
  DEVICE: 2,
  COMMAND: 4,
  CLASS: 10,
  BAR0: 16,
  SUBSYSTEM: 44,
  INTERRUPT_LINE: 60,
  INTERRUPT_PIN: 61,
};
/** Nobody's: a VF that exists nowhere. */
const VENDOR_ID = 0xfe44;
const DEVICE_ID = 0x0f0e;
const CLASS_ETHERNET = 0x0200;
/** What a guest may change: command, BAR 0, interrupt line. */
const WRITABLE: readonly (readonly [from: number, to: number])[] = [
  [At.COMMAND, At.COMMAND + 2],
  [At.BAR0, At.BAR0 + 4],
  [At.INTERRUPT_LINE, At.INTERRUPT_LINE + 1],
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
    bytes.writeUInt16LE(VENDOR_ID, At.VENDOR);
    bytes.writeUInt16LE(DEVICE_ID, At.DEVICE);
    bytes.writeUInt16LE(CLASS_ETHERNET, At.CLASS);
    bytes.writeUInt16LE(VENDOR_ID, At.SUBSYSTEM);
    bytes.writeUInt16LE(this.#subsystem, At.SUBSYSTEM + 2);
    bytes[At.INTERRUPT_PIN] = 1;
  }

  /** As a guest does it: read-only bytes stay, the size of BAR 0 shows in the bits that stay clear. */
  write(offset: number, values: Buffer): void {
    for (const [index, value] of values.entries()) {
      const at = offset + index;
      if (WRITABLE.some(([from, to]) => at >= from && at < to)) this.bytes[at] = value;
    }
    this.bytes.writeInt32LE(this.bytes.readInt32LE(At.BAR0) & -BAR_BYTES, At.BAR0);
  }

  save(): Buffer {
    const saved = Buffer.alloc(PCI_CONFIG_BYTES);
    saved.writeInt32BE(PCI_VERSION, 0);
    this.bytes.copy(saved, 4);
    return saved;
  }

  /** Returns why these bytes are no configuration of this device; undefined: they were taken. */
  load(saved: Buffer): string | undefined {
    if (saved.length !== PCI_CONFIG_BYTES) return `${saved.length} bytes of configuration, not ${PCI_CONFIG_BYTES}`;
    const version = saved.readInt32BE(0);
    if (version < 1 || version > PCI_VERSION) return `configuration of version ${version}`;
    const space = saved.subarray(4, 4 + CONFIG_SPACE_BYTES);
    const wrong = this.bytes.findIndex((byte, at) => byte !== space[at] && isIdentity(at));
    if (wrong >= 0)
      return `configuration of another device: byte ${wrong} is ${space[wrong]}, not ${this.bytes[wrong]}`;
    space.copy(this.bytes);
    return undefined;
  }
}

/** The destination has the same device, but perhaps another number of it. */
function isIdentity(at: number): boolean {
  return at < At.COMMAND || (at >= At.CLASS && at < At.CLASS + 2) || (at >= At.SUBSYSTEM && at < At.SUBSYSTEM + 2);
}

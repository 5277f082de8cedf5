/**
 * Configuration space of a PCI device, and how a VMM sends what it keeps of it: in a VFIO device's section it is QEMU's
 * VFIOPCIDevice, version 1, of a device without MSI-X:
 *
 * ```
 * i32 2   256 bytes of configuration space   4 * u32 level of an interrupt pin          276 bytes, big endian
 * ```
 * @spec qemu hw/vfio/pci.c (vmstate_vfio_pci_config), hw/pci/pci.c (vmstate_pci_device)
 */
export const CONFIG_SPACE_BYTES = 256;
const PCI_VERSION = 2;
const PINS = 4;
const PCI_CONFIG_BYTES = 4 + CONFIG_SPACE_BYTES + 4 * PINS;

/** Where things are in it. */
export const ConfigAt = {
  VENDOR: 0,
  DEVICE: 2,
  COMMAND: 4,
  CLASS: 10,
  BAR0: 16,
  BARS_END: 40,
  SUBSYSTEM: 44,
  INTERRUPT_LINE: 60,
  INTERRUPT_PIN: 61,
} as const;

/** Bits of the command: its regions answer, it may write to guest memory. */
export const COMMAND_MEMORY = 2;
export const COMMAND_BUS_MASTER = 4;

export function encodeConfig(space: Buffer): Buffer {
  const saved = Buffer.alloc(PCI_CONFIG_BYTES);
  saved.writeInt32BE(PCI_VERSION, 0);
  space.copy(saved, 4, 0, CONFIG_SPACE_BYTES);
  return saved;
}

/** The configuration space that was saved, or why it is none of a device whose own is `own`. */
export function decodeConfig(saved: Buffer, own: Buffer): Buffer | string {
  if (saved.length !== PCI_CONFIG_BYTES) return `${saved.length} bytes of configuration, not ${PCI_CONFIG_BYTES}`;
  const version = saved.readInt32BE(0);
  if (version < 1 || version > PCI_VERSION) return `configuration of version ${version}`;
  const space = saved.subarray(4, 4 + CONFIG_SPACE_BYTES);
  const wrong = own.findIndex((byte, at) => byte !== space[at] && isIdentity(at));
  if (wrong < 0) return space;
  return `configuration of another device: byte ${wrong} is ${space[wrong]}, not ${own[wrong]}`;
}

/** The destination has the same device, but perhaps another number of it. */
function isIdentity(at: number): boolean {
  const { COMMAND, CLASS, SUBSYSTEM } = ConfigAt;
  return at < COMMAND || (at >= CLASS && at < CLASS + 2) || (at >= SUBSYSTEM && at < SUBSYSTEM + 2);
}

/**
 * The rest of a device: what a VMM or a vfio-user server needs to give it to a guest. Regions, interrupts, and guest memory that the
 * device reaches by DMA. Migration needs none of it.
 *
 * @spec linux include/uapi/linux/vfio.h (VFIO_DEVICE_GET_REGION_INFO, GET_IRQ_INFO)
 */

/** Guest memory as a device reaches it. Addresses are IOVAs below 2^53. Rejects with VFIO_OPERATION: ENOENT unmapped, EACCES. */
export interface DmaSpace {
  read(iova: number, into: Buffer): Promise<void>;
  write(iova: number, bytes: Buffer): Promise<void>;
}

export interface DeviceRegion {
  /** 0-5 BARs, 6 ROM, 7 PCI config space, 8 VGA. */
  readonly index: number;
  /** Bytes. */
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

/** Bits of a PCI device's interrupt kinds. */
export interface DeviceInterrupt {
  /** 0 INTx, 1 MSI, 2 MSI-X, 3 ERR, 4 REQ. */
  readonly index: number;
  readonly count: number;
}

export interface DeviceFunction {
  /** Those that exist. */
  readonly regions: readonly DeviceRegion[];
  readonly interrupts: readonly DeviceInterrupt[];
  readRegion(index: number, offset: number, into: Buffer): Promise<void>;
  writeRegion(index: number, offset: number, bytes: Buffer): Promise<void>;
  /** Where the device's DMA goes from now on; undefined: nowhere, DMA fails inside the device. */
  attachDma(space: DmaSpace | undefined): Promise<void>;
}

/** What a client asks about a device and does with its regions and its state. A PCI device always has nine regions and five interrupts. */
import { vfioUser } from '../../wire/index.ts';
import { ERRNO } from '../errors.ts';
import type { DeviceFunction, DeviceRegion } from '../function.ts';
import { refuse } from '../user-link/errors.ts';
import type { OfferedDevice } from './served-device.ts';

type Command = vfioUser.CommandName;
type Request<C extends Command> = vfioUser.Request<C>;
type Reply<C extends Command> = vfioUser.Reply<C>;

const { DEVICE_FLAG, IRQ_FLAG, PCI_IRQ_COUNT, PCI_REGION_COUNT, REGION_FLAG, REGION_INFO_BYTES } = vfioUser;
const INFO_BYTES = 16;

/** Largest data of a message that a server takes and gives, bytes. */
export const SERVER_DATA_BYTES_MAX = 1024 * 1024;

/** `condition`, or EINVAL. */
function require(command: Command, condition: boolean): asserts condition {
  if (!condition) throw refuse('the server', command, ERRNO.EINVAL);
}

export function deviceInfo({ argsz }: Request<'DEVICE_GET_INFO'>): Reply<'DEVICE_GET_INFO'> {
  require('DEVICE_GET_INFO', argsz >= INFO_BYTES);
  const flags = DEVICE_FLAG.RESET | DEVICE_FLAG.PCI;
  return { argsz: INFO_BYTES, flags, regions: PCI_REGION_COUNT, irqs: PCI_IRQ_COUNT };
}

/** One that the device does not have is of size 0. */
export function regionInfo(
  device: DeviceFunction,
  { argsz, index }: Request<'DEVICE_GET_REGION_INFO'>,
): Reply<'DEVICE_GET_REGION_INFO'> {
  require('DEVICE_GET_REGION_INFO', argsz >= REGION_INFO_BYTES && index < PCI_REGION_COUNT);
  const region = device.regions.find((one) => one.index === index);
  const flags =
    (region?.readable === true ? REGION_FLAG.READ : 0) | (region?.writable === true ? REGION_FLAG.WRITE : 0);
  return { argsz: REGION_INFO_BYTES, flags, index, size: region?.size ?? 0, offset: 0, capabilities: [] };
}

/** No part of a region has a descriptor. */
export function regionIoFds({ argsz, index }: Request<'DEVICE_GET_REGION_IO_FDS'>): Reply<'DEVICE_GET_REGION_IO_FDS'> {
  require('DEVICE_GET_REGION_IO_FDS', argsz >= INFO_BYTES && index < PCI_REGION_COUNT);
  return { argsz: INFO_BYTES, index, subRegions: [] };
}

export function irqInfo(
  device: DeviceFunction,
  { argsz, index }: Request<'DEVICE_GET_IRQ_INFO'>,
): Reply<'DEVICE_GET_IRQ_INFO'> {
  require('DEVICE_GET_IRQ_INFO', argsz >= INFO_BYTES && index < PCI_IRQ_COUNT);
  const flags = IRQ_FLAG.EVENTFD;
  return { argsz: INFO_BYTES, flags, index, count: vectorsOf(device, index) };
}

/** Checked and taken. The descriptors to signal do not reach us, so no interrupt is ever raised. */
export function setIrqs(device: DeviceFunction, { index, start, count }: Request<'DEVICE_SET_IRQS'>): void {
  require('DEVICE_SET_IRQS', index < PCI_IRQ_COUNT && start + count <= vectorsOf(device, index));
}

function vectorsOf(device: DeviceFunction, index: number): number {
  return device.interrupts.find((one) => one.index === index)?.count ?? 0;
}

/** Who asks for more than he has said he takes is given it, as libvfio-user does: its own client asks so. */
export async function readRegion(
  device: DeviceFunction,
  { offset, region, count }: Request<'REGION_READ'>,
): Promise<Reply<'REGION_READ'>> {
  const { readable, size } = regionOf(device, 'REGION_READ', region);
  require('REGION_READ', readable && count <= SERVER_DATA_BYTES_MAX && offset + count <= size);
  const data = Buffer.alloc(count);
  if (count > 0) await device.readRegion(region, offset, data);
  return { offset, region, data };
}

export async function writeRegion(
  device: DeviceFunction,
  { offset, region, data }: Request<'REGION_WRITE'>,
): Promise<Reply<'REGION_WRITE'>> {
  const { writable, size } = regionOf(device, 'REGION_WRITE', region);
  require('REGION_WRITE', writable && offset + data.length <= size);
  if (data.length > 0) await device.writeRegion(region, offset, data);
  return { offset, region, count: data.length };
}

/** As many as can be done, from the first on; none is an error. libvfio-user does not have this command. */
export async function writeRegionsMulti(
  device: DeviceFunction,
  { writes }: Request<'REGION_WRITE_MULTI'>,
): Promise<Reply<'REGION_WRITE_MULTI'>> {
  let done = 0;
  try {
    for (const { offset, region, count, data } of writes) {
      require('REGION_WRITE_MULTI', count <= vfioUser.MULTI_WRITE_BYTES_MAX);
      await writeRegion(device, { offset, region, data: data.subarray(0, count) });
      done++;
    }
  } catch (error) {
    if (done === 0) throw error;
  }
  return { done };
}

function regionOf(device: DeviceFunction, command: Command, index: number): DeviceRegion {
  const region = device.regions.find((one) => one.index === index);
  require(command, region !== undefined);
  return region;
}

/**
 * As many bytes as were asked for, unless the device has no more for now: the protocol's text takes less for the end, libvfio-user only
 * nothing at all.
 */
export async function readMigrationData(
  device: OfferedDevice,
  { argsz, size }: Request<'MIG_DATA_READ'>,
  dataBytesMax: number,
): Promise<Reply<'MIG_DATA_READ'>> {
  require('MIG_DATA_READ', size <= dataBytesMax && argsz >= vfioUser.MIG_DATA_HEAD_BYTES + size);
  const data = Buffer.allocUnsafe(size);
  let filled = 0;
  while (filled < size) {
    const count = await device.read(data.subarray(filled));
    if (typeof count !== 'number') break;
    filled += count;
  }
  return { data: data.subarray(0, filled) };
}

export async function writeMigrationData(
  device: OfferedDevice,
  { data }: Request<'MIG_DATA_WRITE'>,
  dataBytesMax: number,
): Promise<void> {
  require('MIG_DATA_WRITE', data.length <= dataBytesMax);
  if (data.length > 0) await device.write(data);
}

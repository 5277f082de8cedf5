/**
 * Which commands are served in which state of the device; any other state: EINVAL.
 *
 * The protocol leaves it open except for migration data. libvfio-user is stricter: in STOP and STOP_COPY it refuses to describe the device, to
 * map and unmap memory, to set up interrupts and to reset, so that a device that was left there cannot be used again. Here all that
 * changes nothing in the state that is being read is served, and a reset leads from everywhere to RUNNING, as the kernel's does.
 */
import type { vfioUser } from '../../wire/index.ts';
import { DEVICE_STATES, type DeviceState } from '../states.ts';

type ClientCommand = {
  [C in vfioUser.CommandName]: (typeof vfioUser.COMMANDS)[C]['from'] extends 'client' ? C : never;
}[vfioUser.CommandName];

const ANY: readonly DeviceState[] = DEVICE_STATES;
/** A guest that touches the device while its state is read out would spoil it; a broken device has nothing to touch. */
const TOUCHABLE = DEVICE_STATES.filter((state) => state !== 'STOP_COPY' && state !== 'ERROR');

const SERVED_IN = {
  VERSION: ANY,
  DMA_MAP: ANY,
  DMA_UNMAP: ANY,
  DEVICE_GET_INFO: ANY,
  DEVICE_GET_REGION_INFO: ANY,
  DEVICE_GET_REGION_IO_FDS: ANY,
  DEVICE_GET_IRQ_INFO: ANY,
  DEVICE_SET_IRQS: ANY,
  REGION_READ: TOUCHABLE,
  REGION_WRITE: TOUCHABLE,
  REGION_WRITE_MULTI: TOUCHABLE,
  DEVICE_RESET: ANY,
  DEVICE_FEATURE: ANY,
  MIG_DATA_READ: ['PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY'],
  MIG_DATA_WRITE: ['RESUMING'],
} as const satisfies Record<ClientCommand, readonly DeviceState[]>;

export function isServedIn(state: DeviceState, command: ClientCommand): boolean {
  const states: readonly DeviceState[] = SERVED_IN[command];
  return states.includes(state);
}

export function isClientCommand(command: vfioUser.CommandName): command is ClientCommand {
  return command in SERVED_IN;
}

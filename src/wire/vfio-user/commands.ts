/** The commands of the protocol: number, who sends them, what they carry. A number that is not here is refused by the receiver with EINVAL. */
import {
  DeviceInfo,
  DeviceInfoRequest,
  IrqInfo,
  IrqInfoRequest,
  RegionInfo,
  RegionInfoRequest,
  RegionIoFds,
  RegionIoFdsRequest,
} from './device-info.ts';
import { DmaData, DmaMap, DmaRange, DmaUnmap, DmaUnmapped } from './dma.ts';
import { DeviceFeature } from './feature.ts';
import { SetIrqs } from './irqs.ts';
import { type Field, nothing } from './layout.ts';
import { MigData, MigDataRange } from './migration-data.ts';
import { RegionData, RegionRange, RegionWriteMulti, RegionWrittenMulti } from './region-access.ts';
import { Version } from './version.ts';

interface CommandFacts {
  readonly number: number;
  readonly from: 'client' | 'server';
  readonly request: Field<unknown>;
  readonly reply: Field<unknown>;
}

export const COMMANDS = {
  VERSION: { number: 1, from: 'client', request: Version, reply: Version },
  DMA_MAP: { number: 2, from: 'client', request: DmaMap, reply: nothing },
  DMA_UNMAP: { number: 3, from: 'client', request: DmaUnmap, reply: DmaUnmapped },
  DEVICE_GET_INFO: { number: 4, from: 'client', request: DeviceInfoRequest, reply: DeviceInfo },
  DEVICE_GET_REGION_INFO: { number: 5, from: 'client', request: RegionInfoRequest, reply: RegionInfo },
  DEVICE_GET_REGION_IO_FDS: { number: 6, from: 'client', request: RegionIoFdsRequest, reply: RegionIoFds },
  DEVICE_GET_IRQ_INFO: { number: 7, from: 'client', request: IrqInfoRequest, reply: IrqInfo },
  DEVICE_SET_IRQS: { number: 8, from: 'client', request: SetIrqs, reply: nothing },
  REGION_READ: { number: 9, from: 'client', request: RegionRange, reply: RegionData },
  REGION_WRITE: { number: 10, from: 'client', request: RegionData, reply: RegionRange },
  DMA_READ: { number: 11, from: 'server', request: DmaRange, reply: DmaData },
  DMA_WRITE: { number: 12, from: 'server', request: DmaData, reply: DmaRange },
  DEVICE_RESET: { number: 13, from: 'client', request: nothing, reply: nothing },
  REGION_WRITE_MULTI: { number: 15, from: 'client', request: RegionWriteMulti, reply: RegionWrittenMulti },
  DEVICE_FEATURE: { number: 16, from: 'client', request: DeviceFeature, reply: DeviceFeature },
  MIG_DATA_READ: { number: 17, from: 'client', request: MigDataRange, reply: MigData },
  MIG_DATA_WRITE: { number: 18, from: 'client', request: MigData, reply: nothing },
} as const satisfies Record<string, CommandFacts>;

export type CommandName = keyof typeof COMMANDS;
type ValueOf<F> = F extends Field<infer T> ? T : never;
export type Request<C extends CommandName> = ValueOf<(typeof COMMANDS)[C]['request']>;
export type Reply<C extends CommandName> = ValueOf<(typeof COMMANDS)[C]['reply']>;

const BY_NUMBER: ReadonlyMap<number, CommandName> = new Map(
  (Object.keys(COMMANDS) as CommandName[]).map((name) => [COMMANDS[name].number, name]),
);

export function commandOfNumber(number: number): CommandName | undefined {
  return BY_NUMBER.get(number);
}

/** Regions and interrupts of a device behind a server: what there is, and access to the regions by messages. */
import { vfioUser } from '../../wire/index.ts';
import { type DeviceOperation, ERRNO, operationFailed } from '../errors.ts';
import type { DeviceInterrupt, DeviceRegion } from '../function.ts';
import type { Link } from '../user-link/link.ts';
import type { Connection } from './connect.ts';

/** More of either than any device has; each costs a question. @spec qemu hw/vfio-user/device.c has the same bounds */
const REGIONS_MAX = 100;
const INTERRUPTS_MAX = 50;

export type InTurn = <T>(operation: DeviceOperation, work: () => Promise<T>) => Promise<T>;

export class RemoteFunction {
  /** Those that are there; `mappable` parts count as any other: they can be reached by messages too. */
  readonly regions: readonly DeviceRegion[];
  readonly interrupts: readonly DeviceInterrupt[];
  readonly #connection: Connection;
  readonly #timeoutMs: number;
  readonly #inTurn: InTurn;

  static async ask(connection: Connection, timeoutMs: number, inTurn: InTurn): Promise<RemoteFunction> {
    const { link } = connection;
    const info = await link.request('DEVICE_GET_INFO', { argsz: 16 }, timeoutMs, (reply) => {
      if (reply.regions <= REGIONS_MAX && reply.irqs <= INTERRUPTS_MAX) return reply;
      const found = `${reply.regions} and ${reply.irqs}`;
      throw link.badReply('DEVICE_GET_INFO', `${REGIONS_MAX} regions and ${INTERRUPTS_MAX} interrupts at most`, found);
    });
    const regions: DeviceRegion[] = [];
    for (let index = 0; index < info.regions; index++) {
      const region = await askRegion(link, index, timeoutMs);
      if (region.size > 0) regions.push(region);
    }
    const interrupts: DeviceInterrupt[] = [];
    for (let index = 0; index < info.irqs; index++) {
      const interrupt = await askInterrupt(link, index, timeoutMs);
      if (interrupt.count > 0) interrupts.push(interrupt);
    }
    return new RemoteFunction(connection, timeoutMs, inTurn, regions, interrupts);
  }

  constructor(
    connection: Connection,
    timeoutMs: number,
    inTurn: InTurn,
    regions: readonly DeviceRegion[],
    interrupts: readonly DeviceInterrupt[],
  ) {
    this.#connection = connection;
    this.#timeoutMs = timeoutMs;
    this.#inTurn = inTurn;
    this.regions = regions;
    this.interrupts = interrupts;
  }

  readRegion(region: number, offset: number, into: Buffer): Promise<void> {
    const { link, readBytesMax } = this.#connection;
    return this.#inTurn('read region', async () => {
      for (let at = 0; at < into.length; at += readBytesMax) {
        const part = into.subarray(at, at + readBytesMax);
        const request = { offset: offset + at, region, count: part.length };
        await link.request('REGION_READ', request, this.#timeoutMs, ({ data }) => {
          if (data.length !== part.length) throw link.badReply('REGION_READ', `${part.length} bytes`, data.length);
          data.copy(part);
        });
      }
    });
  }

  writeRegion(region: number, offset: number, bytes: Buffer): Promise<void> {
    const { link, writeBytesMax } = this.#connection;
    return this.#inTurn('write region', async () => {
      for (let at = 0; at < bytes.length; at += writeBytesMax) {
        const data = bytes.subarray(at, at + writeBytesMax);
        const written = await link.request(
          'REGION_WRITE',
          { offset: offset + at, region, data },
          this.#timeoutMs,
          ({ count }) => count,
        );
        if (written === data.length) continue;
        const why = `${written} of ${data.length} bytes at ${offset + at} were taken`;
        throw operationFailed(link.peer, 'write region', ERRNO.EIO, why);
      }
    });
  }
}

function askRegion(link: Link, index: number, timeoutMs: number): Promise<DeviceRegion> {
  const request = { argsz: vfioUser.REGION_INFO_BYTES, index };
  return link.request('DEVICE_GET_REGION_INFO', request, timeoutMs, (reply) => {
    if (reply.index !== index) throw link.badReply('DEVICE_GET_REGION_INFO', `region ${index}`, reply.index);
    const readable = (reply.flags & vfioUser.REGION_FLAG.READ) !== 0;
    const writable = (reply.flags & vfioUser.REGION_FLAG.WRITE) !== 0;
    return { index, size: reply.size, readable, writable };
  });
}

function askInterrupt(link: Link, index: number, timeoutMs: number): Promise<DeviceInterrupt> {
  return link.request('DEVICE_GET_IRQ_INFO', { argsz: 16, index }, timeoutMs, (reply) => {
    if (reply.index !== index) throw link.badReply('DEVICE_GET_IRQ_INFO', `interrupt ${index}`, reply.index);
    return { index, count: reply.count };
  });
}

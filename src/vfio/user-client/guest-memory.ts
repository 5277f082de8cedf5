/**
 * Guest memory for a server that reaches it by messages: it is told what there is, and its DMA_READ and DMA_WRITE are served, at any
 * time. What it writes passes through here and nowhere else, so this is also where it is logged.
 */
import { vfioUser } from '../../wire/index.ts';
import type { DmaRange } from '../device.ts';
import { ERRNO } from '../errors.ts';
import type { DmaSpace } from '../function.ts';
import { refuse } from '../user-link/errors.ts';
import type { PageLog } from '../user-link/page-log.ts';
import { CLIENT_DATA_BYTES_MAX } from './connect.ts';

export interface GuestMemory {
  /** What the server may reach. */
  readonly ranges: readonly DmaRange[];
  /** Marks the pages dirty that are written to. */
  readonly space: DmaSpace;
}

const { READ, WRITE } = vfioUser.DMA_MAP_FLAG;

export function mapRequest({ iova, length }: DmaRange): vfioUser.Request<'DMA_MAP'> {
  return { flags: READ | WRITE, offset: 0, address: iova, size: length };
}

export function unmapRequest({ iova, length }: DmaRange): vfioUser.Request<'DMA_UNMAP'> {
  return { argsz: 24, flags: 0, address: iova, size: length, bitmap: undefined };
}

export class ServedMemory {
  memory: GuestMemory | undefined;
  log: PageLog | undefined;

  /** The reply to a command of the server. Throws what is answered with an error. */
  async serve(message: vfioUser.Message): Promise<Buffer> {
    switch (vfioUser.commandOfNumber(message.command)) {
      case 'DMA_READ': {
        const { address, count } = vfioUser.decodeRequest('DMA_READ', message);
        if (count > CLIENT_DATA_BYTES_MAX) throw refuse('guest memory', 'DMA_READ', ERRNO.EINVAL);
        const data = Buffer.allocUnsafe(count);
        await this.#spaceOf('DMA_READ', address, count).read(address, data);
        return vfioUser.encodeReply(message.id, 'DMA_READ', { address, data });
      }
      case 'DMA_WRITE': {
        const { address, data } = vfioUser.decodeRequest('DMA_WRITE', message);
        await this.#spaceOf('DMA_WRITE', address, data.length).write(address, data);
        this.log?.mark(address, data.length);
        return vfioUser.encodeReply(message.id, 'DMA_WRITE', { address, count: data.length });
      }
      default:
        return vfioUser.encodeErrorReply(message.id, message.command, ERRNO.EINVAL);
    }
  }

  /** The range has to lie in one that the server was told of. */
  #spaceOf(command: vfioUser.CommandName, address: number, count: number): DmaSpace {
    const { ranges, space } = this.memory ?? { ranges: [] };
    const within = ranges.some(({ iova, length }) => address >= iova && address + count <= iova + length);
    if (space === undefined || !within) throw refuse('guest memory', command, ERRNO.ENOENT);
    return space;
  }
}

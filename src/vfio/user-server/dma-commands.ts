/** DMA_MAP and DMA_UNMAP. Descriptors that come with a mapping do not reach us: all memory is reached by messages. */
import { vfioUser } from '../../wire/index.ts';
import { isLogPageSize } from '../dma-log-rules.ts';
import { ERRNO } from '../errors.ts';
import { refuse } from '../user-link/errors.ts';
import type { PageLog } from '../user-link/page-log.ts';
import type { ClientMemory } from './client-memory.ts';

const { READ, WRITE } = vfioUser.DMA_MAP_FLAG;
const { ALL, GET_DIRTY_BITMAP } = vfioUser.DMA_UNMAP_FLAG;
/** Bytes of a DMA_UNMAP reply without and before its bitmap. */
const UNMAPPED_BYTES = 24;
const BITMAP_HEAD_BYTES = 16;

/** Overlapping what is mapped is EEXIST, as the protocol says; libvfio-user says EINVAL, and takes exactly the same mapping again. */
export function mapDma(memory: ClientMemory, { flags, address, size }: vfioUser.Request<'DMA_MAP'>): void {
  const no = (errno: number) => refuse('the server', 'DMA_MAP', errno);
  if ((flags & ~(READ | WRITE)) !== 0 || size === 0) throw no(ERRNO.EINVAL);
  if (!Number.isSafeInteger(address + size)) throw no(ERRNO.EOVERFLOW);
  if (memory.mappings.size >= vfioUser.CAPABILITY_DEFAULTS.maxDmaMaps) throw no(ERRNO.ENOSPC);
  const mapping = { iova: address, length: size, readable: (flags & READ) !== 0, writable: (flags & WRITE) !== 0 };
  if (!memory.mappings.add(mapping)) throw no(ERRNO.EEXIST);
}

/** Resolves when no transfer is under way any more: the client may give the memory up once it has the reply. */
export async function unmapDma(
  memory: ClientMemory,
  request: vfioUser.Request<'DMA_UNMAP'>,
): Promise<vfioUser.Reply<'DMA_UNMAP'>> {
  const { flags, address, size } = request;
  const no = (errno: number) => refuse('the server', 'DMA_UNMAP', errno);
  const all = (flags & ALL) !== 0;
  if ((flags & ~(ALL | GET_DIRTY_BITMAP)) !== 0 || (all && (address !== 0 || size !== 0))) throw no(ERRNO.EINVAL);
  const wanted = (flags & GET_DIRTY_BITMAP) === 0 ? undefined : wantedBitmap(memory.log, request);
  if (all) memory.mappings.clear();
  else if (!memory.mappings.remove(address, size)) throw no(ERRNO.ENOENT);
  await memory.idle();
  if (wanted === undefined) return { argsz: UNMAPPED_BYTES, flags, address, size, bitmap: undefined };
  const words = new Uint32Array(wanted.bytes / 4);
  wanted.log.report({ iova: address, length: size }, wanted.pageSize, words);
  const argsz = UNMAPPED_BYTES + BITMAP_HEAD_BYTES + wanted.bytes;
  return { argsz, flags, address, size, bitmap: { pageSize: wanted.pageSize, bits: Buffer.from(words.buffer) } };
}

/** Checked before anything is unmapped. */
function wantedBitmap(log: PageLog | undefined, { argsz, size, bitmap }: vfioUser.Request<'DMA_UNMAP'>) {
  const bytes = bitmap === undefined ? 0 : Math.ceil(size / bitmap.pageSize / 64) * 8;
  const room = Math.min(argsz - UNMAPPED_BYTES - BITMAP_HEAD_BYTES, vfioUser.CAPABILITY_DEFAULTS.maxDataXferSize);
  const fits = bitmap !== undefined && size > 0 && bytes <= bitmap.size && bytes <= room;
  if (log === undefined || !fits || !isLogPageSize(bitmap.pageSize))
    throw refuse('the server', 'DMA_UNMAP', ERRNO.EINVAL);
  return { log, bytes, pageSize: bitmap.pageSize };
}

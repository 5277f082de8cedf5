/**
 * What DMA logging may be asked for, wherever the log is kept.
 *
 * @spec linux include/uapi/linux/vfio.h (VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _REPORT)
 */
import type { DmaRange } from './device.ts';
import { ERRNO } from './errors.ts';

/** Pages of a log are not smaller, bytes. */
const PAGE_BYTES_MIN = 4096;
const RANGES_MAX = 256;

export class DmaLogError extends Error {
  /** Linux number. */
  readonly errno: number;

  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

/** Whether a log can have pages of this size, bytes: a power of two, 4096 or more. */
export function isLogPageSize(pageSize: number): boolean {
  return pageSize >= PAGE_BYTES_MIN && Number.isSafeInteger(pageSize) && Number.isInteger(Math.log2(pageSize));
}

/** Throws DmaLogError unless a log with pages of this size can be started on these ranges; returns them sorted. */
export function checkLogRanges(pageSize: number, ranges: readonly DmaRange[]): readonly DmaRange[] {
  checkPageSize(pageSize);
  if (ranges.length === 0) throw new DmaLogError(ERRNO.EINVAL, 'no range');
  if (ranges.length > RANGES_MAX) throw new DmaLogError(ERRNO.E2BIG, `${ranges.length} ranges`);
  const sorted = ranges.toSorted((a, b) => a.iova - b.iova);
  for (const [index, range] of sorted.entries()) {
    checkRange(range, PAGE_BYTES_MIN);
    const next = sorted[index + 1];
    if (next !== undefined && range.iova + range.length > next.iova) {
      throw new DmaLogError(ERRNO.EINVAL, 'ranges overlap');
    }
  }
  return sorted;
}

/** Throws DmaLogError unless a bitmap of `words` 32-bit words holds a bit for every page of the range, and there can be such a report. */
export function checkLogReport(range: DmaRange, pageSize: number, words: number): void {
  checkPageSize(pageSize);
  checkRange(range, pageSize);
  if (words * 32 < range.length / pageSize) throw new DmaLogError(ERRNO.EFAULT, 'the bitmap is too small');
}

function checkPageSize(pageSize: number): void {
  if (!isLogPageSize(pageSize)) throw new DmaLogError(ERRNO.EINVAL, `pages of ${pageSize} bytes`);
}

function checkRange({ iova, length }: DmaRange, pageSize: number): void {
  if (iova % pageSize !== 0 || length % pageSize !== 0 || length <= 0 || iova < 0) {
    throw new DmaLogError(ERRNO.EINVAL, `range ${iova}+${length}`);
  }
  if (iova + length > Number.MAX_SAFE_INTEGER) throw new DmaLogError(ERRNO.EOVERFLOW, `range ${iova}+${length}`);
}

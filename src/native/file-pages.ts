/**
 * Pages between an address and a place in a file, by descriptors that threads may share. All throw NATIVE_UNAVAILABLE, NATIVE_CALL; nothing is
 * allocated per call.
 */
import { callFailed } from './errors.ts';
import { needLibc } from './libc.ts';

const NEED = 'parallel channels';
const EINTR = 4;
const SYNC_FILE_RANGE_WRITE = 2;

/** Fills `length` bytes at `address` from `position` of the file on; returns how many there were: fewer only at its end. */
export function readAtAddress(fd: number, address: number, length: number, position: number): number {
  return transfer('pread', fd, address, length, position);
}

/** Writes `length` bytes from `address` to `position` of the file, all of them. */
export function writeFromAddress(fd: number, address: number, length: number, position: number): void {
  transfer('pwrite', fd, address, length, position);
}

function transfer(call: 'pread' | 'pwrite', fd: number, address: number, length: number, position: number): number {
  const c = needLibc(NEED);
  let done = 0;
  while (done < length) {
    const count = c[call](fd, address + done, length - done, position + done);
    if (count === 0) break;
    if (count > 0) {
      done += count;
      continue;
    }
    const errno = c.errno();
    if (errno !== EINTR) throw callFailed(call, errno);
  }
  return done;
}

/**
 * Has the disk begin with what of the file is in memory only: less is left for the sync at the end. Waits for nothing but room in the device's
 * queue. Tells no errors: that sync does.
 */
export function startWriteback(fd: number): void {
  needLibc(NEED).syncFileRange(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

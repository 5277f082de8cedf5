/** The few file operations of a checkpoint, whole or not at all, with errors that name the path. */
import { type FileHandle, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DIRECT_IO_ALIGNMENT, openDirect } from '../../native/index.ts';
import { checkpointError, ioError } from './errors.ts';

export async function writeAt(file: FileHandle, path: string, position: number, ...parts: Uint8Array[]): Promise<void> {
  try {
    let at = position;
    for (const part of parts) {
      for (let done = 0; done < part.length; ) {
        const { bytesWritten } = await file.write(part, done, part.length - done, at + done);
        done += bytesWritten;
      }
      at += part.length;
    }
  } catch (error) {
    throw ioError(path, 'write', error);
  }
}

/** Fills `into` from `position` on; returns how many bytes there were (fewer only at the end of the file). */
export async function readAt(file: FileHandle, path: string, position: number, into: Uint8Array): Promise<number> {
  try {
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await file.read(into, done, into.length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  } catch (error) {
    throw ioError(path, 'read', error);
  }
}

/** Throws CHECKPOINT_PATH if `path` is there and is no regular file. */
export async function requireFileOrNothing(path: string): Promise<void> {
  const stats = await stat(path).catch(() => undefined);
  if (stats === undefined || stats.isFile()) return;
  const what = stats.isDirectory() ? 'a folder' : 'no regular file';
  throw checkpointError({ code: 'CHECKPOINT_PATH', path }, `is ${what}, a checkpoint cannot go there`);
}

/** Makes a rename in the folder of `path` last. */
export async function syncFolderOf(path: string): Promise<void> {
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Another descriptor of the open file `fd`, past the page cache; the caller closes it. `flags`: as `fd` was opened, from fs.constants. Throws
 * CHECKPOINT_DIRECT_IO where the file system has no such thing or pages are too small for it: whoever asked for it wants no other way.
 */
export function reopenDirect(fd: number, path: string, flags: number, pageSize: number): number {
  const refuse = (why: string) =>
    checkpointError({ code: 'CHECKPOINT_DIRECT_IO', path }, `direct-io is on, but ${why}: turn it off for this file`);
  if (pageSize % DIRECT_IO_ALIGNMENT !== 0) throw refuse(`pages of ${pageSize} bytes cannot be written so`);
  let opened: number | undefined;
  try {
    // By its number: the name may be another file's by now.
    opened = openDirect(`/proc/self/fd/${fd}`, flags);
  } catch (error) {
    throw ioError(path, 'open for direct-io', error);
  }
  if (opened === undefined) throw refuse('its file system has no O_DIRECT');
  return opened;
}

import { randomBytes } from 'node:crypto';
import { closeSync, constants } from 'node:fs';
import { type FileHandle, open, realpath, rename, statfs, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { checkpointError, ioError } from './errors.ts';
import { readAt, reopenDirect, requireFileOrNothing, syncFolderOf, writeAt } from './file.ts';

/** Name of a file: 255 bytes, of which the temporary part takes some 40. */
const NAME_KEPT_MAX = 180;

/** A file that has its name only when it is complete: until then a temporary one, in the same folder. Errors name the path that it shall have. */
export class TemporaryFile {
  readonly #path: string;
  #target = '';
  #temporary = '';
  #file: FileHandle | undefined;
  /** Opened with O_DIRECT; -1: not. */
  #directFd = -1;

  /** `path`: a file of that name is replaced. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Once is enough. Throws CHECKPOINT_PATH, CHECKPOINT_IO. */
  async open(): Promise<void> {
    if (this.#file !== undefined) return;
    await requireFileOrNothing(this.#path);
    // A symbolic link stays what it is; the file behind it is replaced.
    this.#target = await realpath(this.#path).catch(() => resolve(this.#path));
    const name = `.${basename(this.#target).slice(0, NAME_KEPT_MAX)}.vmferry-${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
    this.#temporary = join(dirname(this.#target), name);
    try {
      this.#file = await open(this.#temporary, 'wx+', 0o600);
    } catch (error) {
      throw ioError(this.#path, 'make a file beside it', error);
    }
  }

  get fd(): number {
    return this.#opened.fd;
  }

  /** Its own until it is closed; past the page cache. Throws CHECKPOINT_DIRECT_IO. */
  openDirect(pageSize: number): number {
    this.#directFd = reopenDirect(this.fd, this.#path, constants.O_RDWR, pageSize);
    return this.#directFd;
  }

  async write(position: number, ...parts: Uint8Array[]): Promise<void> {
    await writeAt(this.#opened, this.#path, position, ...parts);
  }

  /** Fills `into` from `position` on, as far as there are bytes. */
  async read(position: number, into: Uint8Array): Promise<void> {
    await readAt(this.#opened, this.#path, position, into);
  }

  /** Bytes that the file system has left. */
  async freeSpace(): Promise<number> {
    const { bavail, bsize } = await statfs(dirname(this.#target)).catch((error) => {
      throw ioError(this.#path, 'ask for free space', error);
    });
    return bavail * bsize;
  }

  /** Throws CHECKPOINT_SPACE if the file system has not so many bytes left. */
  async requireSpace(needed: number): Promise<void> {
    const free = await this.freeSpace();
    if (free >= needed) return;
    throw checkpointError(
      { code: 'CHECKPOINT_SPACE', path: this.#path, needed, free },
      `the machine's RAM may need ${needed} bytes, the file system has ${free}`,
    );
  }

  /** To the disk, and to its name: `placed` is called as soon as it has it. */
  async place(placed: () => void): Promise<void> {
    const file = this.#opened;
    try {
      await file.sync();
      await this.#close();
      await rename(this.#temporary, this.#target);
      placed();
      await syncFolderOf(this.#target);
    } catch (error) {
      throw ioError(this.#path, 'finish the file', error);
    }
  }

  /** Never rejects. */
  async remove(): Promise<void> {
    await this.#close().catch(() => {});
    if (this.#temporary !== '') await unlink(this.#temporary).catch(() => {});
  }

  async #close(): Promise<void> {
    if (this.#directFd >= 0) closeSync(this.#directFd);
    this.#directFd = -1;
    await this.#file?.close();
    this.#file = undefined;
  }

  get #opened(): FileHandle {
    if (this.#file === undefined)
      throw checkpointError({ code: 'CHECKPOINT_CLOSED', path: this.#path }, 'the checkpoint is closed');
    return this.#file;
  }
}

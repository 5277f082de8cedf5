/** The processes that benchmarks set against each other: QEMU with RAM that does not compress, and vmferry commands. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { type QemuPeer, QemuProcess, type QmpClient } from '../src/qemu/index.ts';

const MAIN = fileURLToPath(new URL('../src/cli/main.js', import.meta.url));
const MIB = 1024 * 1024;

/**
 * A file in memory full of random bytes: the RAM of a QEMU that has something to send. Remove it afterwards. `copies`: how often each KiB of random
 * bytes is repeated, that is about how well the pages compress.
 */
export class RandomRam {
  readonly path: string;
  readonly bytes: number;

  constructor(bytes: number, copies: 1 | 2 | 4 = 1) {
    this.bytes = bytes;
    this.path = `/dev/shm/vmferry-bench-${process.pid}-${copies}`;
    const file = openSync(this.path, 'wx');
    const piece = Buffer.alloc(MIB);
    for (let at = 0; at < bytes; at += MIB) {
      randomFillSync(piece);
      for (let kib = 0; kib < piece.length; kib += 1024) {
        const first = kib - (kib % (copies * 1024));
        if (kib !== first) piece.copyWithin(kib, first, first + 1024);
      }
      writeSync(file, piece);
    }
    closeSync(file);
  }

  remove(): void {
    rmSync(this.path, { force: true });
  }
}

/** A stopped QEMU whose RAM is `ram`, or one that waits for a migration with RAM that is there already. */
export function startQemu(peer: QemuPeer, ram: RandomRam, role: 'source' | 'destination'): Promise<QemuProcess> {
  const memory =
    role === 'source'
      ? `memory-backend-file,id=ram0,size=${ram.bytes},mem-path=${ram.path},share=on`
      : `memory-backend-ram,id=ram0,size=${ram.bytes},prealloc=on`;
  return QemuProcess.start({
    peer,
    startTimeoutMs: 120_000,
    args: [
      ...['-nodefaults', '-accel', 'tcg', '-m', `${ram.bytes / MIB}M`, '-S'],
      ...['-object', memory, '-machine', 'pc,memory-backend=ram0'],
      ...(role === 'destination' ? ['-incoming', 'defer'] : []),
    ],
  });
}

/** A vmferry command with --json. */
export class VmferryProcess {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #lines: Record<string, unknown>[] = [];
  readonly #exited: Promise<unknown>;
  #wake: () => void = () => {};

  constructor(args: readonly string[]) {
    this.#child = spawn(process.execPath, [MAIN, ...args, '--json'], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
    this.pid = this.#child.pid ?? -1;
    createInterface({ input: this.#child.stdout as Readable }).on('line', (text) => {
      this.#lines.push(JSON.parse(text) as Record<string, unknown>);
      this.#wake();
    });
    this.#exited = once(this.#child, 'close').finally(() => this.#wake());
  }

  /** The first line of that type. Throws if the process ends without one. */
  async line(type: string): Promise<Record<string, unknown>> {
    for (;;) {
      const found = this.#lines.find((line) => line['type'] === type);
      if (found !== undefined) return found;
      if (this.#child.exitCode !== null) {
        throw new Error(`vmferry ended without a line '${type}': ${JSON.stringify(this.#lines.at(-1))}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null) this.#child.kill('SIGTERM');
    await this.#exited;
  }
}

/** Polls until the migration is over. Throws unless it completed. */
export async function migrated(qmp: QmpClient): Promise<{ readonly bytes: number; readonly ms: number }> {
  for (;;) {
    const info = (await qmp.executeAny('query-migrate')) as {
      status?: string;
      'total-time'?: number;
      'error-desc'?: string;
      ram?: { transferred: number };
    };
    if (info.status === 'completed') return { bytes: info.ram?.transferred ?? 0, ms: info['total-time'] ?? 0 };
    if (info.status === 'failed' || info.status === 'cancelled') {
      throw new Error(`the migration ${info.status}: ${info['error-desc'] ?? ''}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

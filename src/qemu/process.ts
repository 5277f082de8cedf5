/**
 * A QEMU process for tests, conformance and demos: a temporary folder with a QMP socket, the first serial port on its standard output, a QMP
 * session of its own over an inherited socket (so `qmpPath` stays free for others), its last words in every error.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { FerryError } from '../base/index.ts';
import type { QemuFault } from './errors.ts';
import type { QemuPeer } from './peers.ts';
import { QmpClient } from './qmp-client.ts';
import { TextLog } from './text-log.ts';

export interface QemuOptions {
  readonly peer: QemuPeer;
  /** For errors; default the peer's name. */
  readonly label?: string;
  /** Command line after what this class adds (display, monitor, serial port). May use `folder`. */
  readonly args: readonly string[] | ((folder: string) => readonly string[] | Promise<readonly string[]>);
  /** Environment variables on top of ours. */
  readonly env?: Readonly<Record<string, string>>;
  /** Socket pairs to hand over, as descriptors FIRST_EXTRA_FD and on; our ends are `sockets`. */
  readonly extraSockets?: number;
  /** Until the monitor greets, ms. */
  readonly startTimeoutMs?: number;
}

export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Number, in the QEMU process, of the first descriptor made by `extraSockets`. */
export const FIRST_EXTRA_FD = 4;

const QMP_FD = 3;
const STOP_TIMEOUT_MS = 5_000;
const STDERR_CHARS_MAX = 64 * 1024;

const living = new Set<QemuProcess>();
let watchingExit = false;

export class QemuProcess {
  readonly label: string;
  readonly peer: QemuPeer;
  readonly folder: string;
  /** A second QMP server socket, for whoever else drives this process. */
  readonly qmpPath: string;
  readonly serial = new TextLog();
  readonly sockets: readonly Duplex[];
  /** Settles when the process is gone. */
  readonly exited: Promise<QemuExit>;
  readonly #child: ChildProcess;
  #qmp: QmpClient | undefined;
  #exit: QemuExit | undefined;
  #stderr = '';

  private constructor(options: QemuOptions, folder: string, args: readonly string[]) {
    this.peer = options.peer;
    this.label = options.label ?? `qemu-${options.peer.name}`;
    this.folder = folder;
    this.qmpPath = join(folder, 'qmp.sock');
    const sockets = Array.from({ length: options.extraSockets ?? 0 }, () => 'pipe' as const);
    this.#child = spawn(options.peer.path, [...this.#ownArgs(), ...args], {
      cwd: folder,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe', ...sockets],
    });
    this.sockets = sockets.map((_, index) => this.#child.stdio[FIRST_EXTRA_FD + index] as Duplex);
    this.#child.stdout?.on('data', (bytes: Buffer) => this.serial.append(bytes.toString('latin1')));
    this.#child.stderr?.on('data', (bytes: Buffer) => {
      this.#stderr = (this.#stderr + bytes.toString()).slice(-STDERR_CHARS_MAX);
    });
    // 'close' and not 'exit': by then its last words have been read.
    this.exited = new Promise((resolve) => {
      const gone = (exit: QemuExit) => {
        this.#exit ??= exit;
        this.serial.end(this.#died());
        resolve(this.#exit);
      };
      this.#child.once('close', (code, signal) => gone({ code, signal }));
      this.#child.once('error', (error) => {
        this.#stderr += error.message;
        gone({ code: null, signal: null });
      });
    });
    for (const socket of this.sockets) socket.on('error', () => {}); // its peer's death is told by `exited`
  }

  /** Starts QEMU and returns when its monitor answers. Throws QEMU_DIED with what it said, QMP_CONNECT_FAILED. */
  static async start(options: QemuOptions): Promise<QemuProcess> {
    const folder = await mkdtemp(join(tmpdir(), 'vmferry-qemu-'));
    let qemu: QemuProcess | undefined;
    try {
      const args = typeof options.args === 'function' ? await options.args(folder) : options.args;
      qemu = new QemuProcess(options, folder, args);
      killAtExit(qemu);
      const stream = qemu.#child.stdio[QMP_FD] as Duplex;
      const timeoutMs = options.startTimeoutMs ?? 30_000;
      qemu.#qmp = await QmpClient.over(stream, qemu.label, { timeoutMs, whyEnded: () => qemu?.whyEnded() });
      return qemu;
    } catch (thrown) {
      if (qemu === undefined) await rm(folder, { recursive: true, force: true });
      else await qemu.stop();
      throw thrown;
    }
  }

  get qmp(): QmpClient {
    if (this.#qmp === undefined) throw this.#died();
    return this.#qmp;
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** What it has written to its standard error, the last 64 KiB. */
  get stderr(): string {
    return this.#stderr;
  }

  /** Undefined while it lives. */
  get exit(): QemuExit | undefined {
    return this.#exit;
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (this.#exit === undefined) this.#child.kill(signal);
  }

  /** Ends the process, by `quit` and if that does not help by SIGKILL, and removes its folder. Idempotent, never throws. */
  async stop(): Promise<void> {
    if (this.#exit === undefined && this.#qmp?.open === true) {
      await this.#qmp.execute('quit', undefined, { timeoutMs: STOP_TIMEOUT_MS }).catch(() => {});
      await Promise.race([this.exited, delay(STOP_TIMEOUT_MS)]);
    }
    this.kill();
    await this.exited;
    this.#qmp?.close();
    for (const socket of this.sockets) socket.destroy();
    await rm(this.folder, { recursive: true, force: true });
    living.delete(this);
  }

  /** The reason for which its sockets ended: its death if that follows soon, else undefined. */
  async whyEnded(): Promise<Error | undefined> {
    return Promise.race([this.exited.then(() => this.#died()), delay(1_000)]);
  }

  #ownArgs(): string[] {
    return [
      ...['-display', 'none', '-name', this.label],
      ...['-chardev', `socket,id=own-qmp,fd=${QMP_FD}`, '-qmp', 'chardev:own-qmp'],
      ...['-chardev', `socket,id=qmp,path=${this.qmpPath},server=on,wait=off`, '-qmp', 'chardev:qmp'],
      ...['-chardev', 'stdio,id=own-serial,signal=off', '-serial', 'chardev:own-serial'],
    ];
  }

  #died(): Error {
    const { code, signal } = this.#exit ?? { code: null, signal: null };
    const status = signal !== null ? `killed by ${signal}` : `exit status ${code}`;
    const stderr = this.#stderr.trim();
    const fault: QemuFault = { code: 'QEMU_DIED', peer: this.label, status, stderr };
    return new FerryError(fault, `${this.label}: process is gone (${status})${stderr && `: ${stderr}`}`);
  }
}

function delay(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, ms, undefined).unref());
}

/** Our own sudden end takes the QEMUs along; that of a SIGKILL cannot be seen from here. */
function killAtExit(qemu: QemuProcess): void {
  if (!watchingExit) process.on('exit', killLiving);
  watchingExit = true;
  living.add(qemu);
}

function killLiving(): void {
  for (const qemu of living) {
    qemu.kill();
    rmSync(qemu.folder, { recursive: true, force: true });
  }
}

import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { TextLog } from '../../src/qemu/index.ts';

/** Last line of a vmferry command with --json. */
export interface CliResult {
  readonly type: 'result';
  readonly status: 'completed' | 'failed' | 'cancelled';
  readonly message?: string;
  readonly error?: { readonly code: string; readonly message: string };
  readonly [fact: string]: unknown;
}

export interface CliEnd {
  /** Exit status: 0 done, 1 failed, 2 usage, 130 interrupted; null if a signal killed it. */
  readonly exitStatus: number | null;
  readonly result: CliResult | undefined;
}

/** Number, in the vmferry process, of the socket that `withSocket` gives it. */
export const CLI_SOCKET_FD = 3;

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** One run of the vmferry command with --json, of the same build as this file. */
export class VmferryCommand {
  readonly name: string;
  /** Our end of the socket pair, if there is one. */
  readonly socket: Duplex | undefined;
  readonly ended: Promise<CliEnd>;
  readonly #child: ChildProcess;
  readonly #out = new TextLog();
  #stderr = '';
  #gone = false;

  constructor(args: readonly string[], { withSocket = false } = {}) {
    this.name = `vmferry ${args[0]}`;
    const command = ['--enable-source-maps', MAIN, ...args, '--json'];
    const stdio = ['ignore', 'pipe', 'pipe', ...(withSocket ? ['pipe' as const] : [])] as const;
    this.#child = spawn(process.execPath, command, { stdio: [...stdio] });
    this.socket = withSocket ? (this.#child.stdio[CLI_SOCKET_FD] as Duplex) : undefined;
    this.socket?.on('error', () => {}); // the command's end is told by `ended`
    this.#child.stdout?.on('data', (bytes: Buffer) => this.#out.append(bytes.toString()));
    this.#child.stderr?.on('data', (bytes: Buffer) => {
      this.#stderr += bytes.toString();
    });
    this.ended = new Promise((resolve) => {
      this.#child.once('close', (exitStatus) => {
        this.#gone = true;
        this.#out.end(new Error(`${this.name} has ended: ${this.said}`));
        resolve({
          exitStatus,
          result: this.#lines().find((line) => line['type'] === 'result') as CliResult | undefined,
        });
      });
    });
  }

  /** What it has said, for errors. */
  get said(): string {
    return `${this.#out.text.trim().split('\n').at(-1) ?? ''} ${this.#stderr.trim()}`.trim();
  }

  /** The first line for which `find` gives something. Throws when the command ends without one, or after `timeoutMs`. */
  waitForLine<T>(find: (line: Record<string, unknown>) => T | undefined, what: string, timeoutMs = 30_000): Promise<T> {
    return this.#out.waitFor(
      () => {
        for (const line of this.#lines()) {
          const value = find(line);
          if (value !== undefined) return value;
        }
        return undefined;
      },
      `${this.name}: ${what}`,
      timeoutMs,
    );
  }

  /** Throws unless it did what it was asked: exit status 0 and a result that is completed. */
  async completed(): Promise<CliResult> {
    const { exitStatus, result } = await this.ended;
    if (exitStatus === 0 && result?.status === 'completed') return result;
    throw new Error(`${this.name} ended with exit status ${exitStatus}: ${this.said}`);
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.#gone) this.#child.kill(signal);
  }

  #lines(): Record<string, unknown>[] {
    const lines = this.#out.text.split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));
const START_MS = 60_000;
const STOP_MS = 5_000;

/**
 * A `vmferry run` process of the demo. It is detached, so that Ctrl-C reaches the demo only and the migration is cancelled in order, and
 * tied to us by an IPC channel: `run` ends when that breaks, even if we are killed.
 */
export class RunChild {
  readonly qmp: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #lastWords = '';

  private constructor(qmp: string, child: ChildProcess) {
    this.qmp = qmp;
    this.#child = child;
    this.#exited = once(child, 'close');
    this.#exited.catch(() => {});
  }

  /** Starts it and returns when its QMP socket listens. Throws what the process says if it ends instead. */
  static async start(qmp: string, args: readonly string[], signal: AbortSignal): Promise<RunChild> {
    signal.throwIfAborted();
    const child = spawn(process.execPath, ['--enable-source-maps', MAIN, 'run', '--json', '--qmp', qmp, ...args], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      detached: true,
    });
    const started = new RunChild(qmp, child);
    try {
      await started.#ready(AbortSignal.any([signal, AbortSignal.timeout(START_MS)]));
      return started;
    } catch (error) {
      await started.stop();
      throw error;
    }
  }

  /** SIGTERM, and SIGKILL if that does not help. Never throws. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS);
    this.#child.kill('SIGTERM');
    await this.#exited.catch(() => {});
    clearTimeout(timer);
  }

  #ready(signal: AbortSignal): Promise<void> {
    const lines = createInterface({ input: this.#child.stdout as Readable });
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      lines.on('line', (text) => {
        const line = JSON.parse(text) as { type: string; error?: { message: string } };
        if (line.type === 'ready') resolve();
        if (line.type === 'result') this.#lastWords = line.error?.message ?? '';
      });
      this.#exited.then(() => reject(new Error(`a run process ended at its start: ${this.#lastWords}`)), reject);
    });
  }
}

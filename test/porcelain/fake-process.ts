/** A QMP peer whose answers are a script: what a QEMU would say at a moment that cannot be had from a real one at will. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';

export type Handler = (args: Record<string, unknown>) => unknown;

/** Throw it in a handler: the peer answers with an error of class GenericError. */
export class Refusal extends Error {}

export class FakeProcess {
  readonly path: string;
  /** Commands that changed or might have changed something, with their arguments. */
  readonly done: [string, Record<string, unknown>][] = [];
  /** RunState. */
  status = 'running';
  migration: Record<string, unknown> = {};
  capabilities: Record<string, boolean> = { 'return-path': false, multifd: false, 'auto-converge': false };
  parameters: Record<string, unknown> = { 'max-bandwidth': 134217728, 'multifd-channels': 2, 'downtime-limit': 300 };
  /** Replaces or adds commands. */
  on: Record<string, Handler> = {};
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string) {
    this.path = path;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async start(t: TestContext): Promise<FakeProcess> {
    const folder = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
    const fake = new FakeProcess(join(folder, 'qmp.sock'));
    fake.#server.listen(fake.path);
    await once(fake.#server, 'listening');
    t.after(async () => {
      fake.die();
      await rm(folder, { recursive: true, force: true });
    });
    return fake;
  }

  /** The process ends: connections and listener go. */
  die(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  did(command: string): Record<string, unknown>[] {
    return this.done.filter(([name]) => name === command).map(([, args]) => args);
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.write(
      JSON.stringify({ QMP: { version: { qemu: { major: 10, minor: 0, micro: 0 }, package: '' }, capabilities: [] } }) +
        '\n',
    );
    createInterface({ input: socket }).on('line', (text) => {
      const { execute, id, arguments: args = {} } = JSON.parse(text);
      if (!execute.startsWith('query-') && execute !== 'qmp_capabilities') this.done.push([execute, args]);
      let reply: object;
      try {
        reply = { return: (this.on[execute] ?? this.#usual(execute))(args) ?? {} };
      } catch (error) {
        reply = { error: { class: 'GenericError', desc: (error as Error).message } };
      }
      socket.write(JSON.stringify({ id, ...reply }) + '\n');
    });
  }

  #usual(command: string): Handler {
    const usual: Record<string, Handler> = {
      qmp_capabilities: () => ({}),
      'query-status': () => ({ running: this.status === 'running', status: this.status }),
      'query-migrate': () => this.migration,
      'query-yank': () => [],
      'query-migrate-capabilities': () =>
        Object.entries(this.capabilities).map(([capability, state]) => ({ capability, state })),
      'query-migrate-parameters': () => this.parameters,
      'migrate-set-capabilities': ({ capabilities }) => {
        for (const { capability, state } of capabilities as { capability: string; state: boolean }[]) {
          this.capabilities[capability] = state;
        }
      },
      'migrate-set-parameters': (args) => Object.assign(this.parameters, args),
      'migrate-incoming': () => ({}),
      migrate: () => ({}),
      migrate_cancel: () => ({}),
      stop: () => {
        this.status = 'paused';
      },
      cont: () => {
        this.status = 'running';
      },
      quit: () => ({}),
    };
    return (
      usual[command] ??
      (() => {
        throw new Refusal(`The command ${command} has not been found`);
      })
    );
  }
}

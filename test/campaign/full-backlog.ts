/** A TCP port where connecting neither succeeds nor fails: its process stands still, and as many peers wait there as the kernel lets. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import type { Address } from '../../src/transport/index.ts';

const LISTEN = `require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () {
  console.log(this.address().port);
})`;
const FILLERS_MAX = 10;
/** A connection on loopback that has not come about by then will not, ms. */
const CONNECT_MS = 100;

export class FullBacklog {
  readonly address: Address;
  readonly #child: ChildProcess;
  readonly #fillers: Socket[] = [];

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.address = { kind: 'tcp', host: '127.0.0.1', port };
  }

  static async open(): Promise<FullBacklog> {
    const child = spawn(process.execPath, ['-e', LISTEN], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [port] = (await once(child.stdout!, 'data')) as [Buffer];
    child.kill('SIGSTOP');
    const backlog = new FullBacklog(child, Number(port.toString()));
    while (await backlog.#fill()) assert(backlog.#fillers.length < FILLERS_MAX, 'the backlog has no end');
    return backlog;
  }

  async close(): Promise<void> {
    for (const socket of this.#fillers) socket.destroy();
    this.#child.kill('SIGKILL');
    await once(this.#child, 'close');
  }

  /** Whether one more was let in. */
  async #fill(): Promise<boolean> {
    const { address } = this;
    assert(address.kind === 'tcp');
    const socket = connect({ host: address.host, port: address.port });
    socket.on('error', () => {});
    this.#fillers.push(socket);
    const connected = once(socket, 'connect').then(() => true);
    connected.catch(() => {});
    return await Promise.race([connected, pause(CONNECT_MS, false)]);
  }
}

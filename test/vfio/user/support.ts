import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  DeviceServer,
  type DmaRange,
  type DmaSpace,
  type GuestMemory,
  type OfferedDevice,
  openUserDevice,
  type ServerEvent,
  type SessionTimeouts,
  type UserDevice,
  type UserDeviceOptions,
} from '../../../src/vfio/index.ts';
import { StreamInput, vfioUser } from '../../../src/wire/index.ts';

/** Runs with a folder for sockets that is gone afterwards. */
export async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-vfio-user-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export interface TestServer {
  readonly server: DeviceServer;
  readonly socket: string;
  readonly events: ServerEvent[];
}

/** Runs with a server that offers `device`. */
export function withServer<T>(
  device: OfferedDevice,
  work: (server: TestServer) => Promise<T>,
  timeouts: Partial<SessionTimeouts> = {},
  ignoresBusMaster = false,
): Promise<T> {
  return inFolder(async (folder) => {
    const socket = join(folder, 'device.sock');
    const events: ServerEvent[] = [];
    const server = await DeviceServer.listen({
      socket,
      device,
      timeouts,
      ignoresBusMaster,
      tell: (event) => events.push(event),
    });
    try {
      return await work({ server, socket, events });
    } finally {
      await server.close();
    }
  });
}

/** Runs with a client of the server at `socket`. */
export async function withDevice<T>(
  socket: string,
  work: (device: UserDevice) => Promise<T>,
  options: Omit<UserDeviceOptions, 'socket'> = {},
): Promise<T> {
  const device = await openUserDevice({ socket, name: 'device', ...options });
  try {
    return await work(device);
  } finally {
    await device.close();
  }
}

/** Guest memory in a buffer, at one address. */
export class TestMemory implements GuestMemory, DmaSpace {
  readonly bytes: Buffer;
  readonly ranges: readonly DmaRange[];
  readonly #iova: number;

  constructor(iova: number, length: number) {
    this.#iova = iova;
    this.bytes = Buffer.alloc(length);
    this.ranges = [{ iova, length }];
  }

  get space(): DmaSpace {
    return this;
  }

  async read(iova: number, into: Buffer): Promise<void> {
    this.bytes.copy(into, 0, iova - this.#iova);
  }

  async write(iova: number, bytes: Buffer): Promise<void> {
    bytes.copy(this.bytes, iova - this.#iova);
  }
}

/** The whole saving session as it is now, read in pieces of `step` bytes. */
export async function readAll(device: Pick<UserDevice, 'read'>, step = 64 * 1024): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    const into = Buffer.alloc(step);
    const count = await device.read(into);
    if (typeof count !== 'number') return Buffer.concat(parts);
    parts.push(into.subarray(0, count));
  }
}

/** An end of a connection that says and hears whatever bytes a test wants. */
export class RawEnd {
  readonly socket: Socket;
  readonly #input = new StreamInput('raw end');
  #wake: () => void = () => {};
  #over = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (bytes: Buffer) => {
      this.#input.add({ bytes, start: 0, end: bytes.length });
      this.#input.release();
      this.#wake();
    });
    for (const event of ['end', 'close', 'error'] as const) {
      socket.on(event, () => {
        this.#over = true;
        this.#wake();
      });
    }
  }

  static async connect(path: string): Promise<RawEnd> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return new RawEnd(socket);
  }

  send(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  /** The next message; undefined: the other end has closed. */
  async next(): Promise<vfioUser.Message | undefined> {
    for (;;) {
      try {
        return vfioUser.keepMessage(vfioUser.decodeMessage(this.#input.reader, 16 * 1024 * 1024));
      } catch (thrown) {
        if (typeof thrown !== 'symbol') throw thrown;
      }
      if (this.#over) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Sends a command; its reply, or the errno that it was refused with. */
  async ask<C extends vfioUser.CommandName>(
    command: C,
    value: vfioUser.Request<C>,
  ): Promise<vfioUser.Reply<C> | number> {
    this.send(vfioUser.encodeRequest(7, command, value));
    return this.answer(command);
  }

  async answer<C extends vfioUser.CommandName>(command: C): Promise<vfioUser.Reply<C> | number> {
    const message = await this.next();
    assert.ok(message !== undefined, `no answer to ${command}`);
    assert.deepEqual([message.type, message.command], ['reply', vfioUser.COMMANDS[command].number]);
    return message.error ?? vfioUser.decodeReply(command, message);
  }

  /** As a client that takes `capabilities`. */
  async greet(capabilities?: vfioUser.Capabilities): Promise<vfioUser.Reply<'VERSION'> | number> {
    return this.ask('VERSION', { major: 0, minor: 1, capabilities });
  }

  close(): void {
    this.socket.destroy();
  }
}

/** Runs with a raw client that has said its version. */
export async function withRaw<T>(
  socket: string,
  work: (raw: RawEnd) => Promise<T>,
  capabilities?: vfioUser.Capabilities,
): Promise<T> {
  const raw = await RawEnd.connect(socket);
  try {
    await raw.greet(capabilities);
    return await work(raw);
  } finally {
    raw.close();
  }
}

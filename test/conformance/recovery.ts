/** What is done to a postcopy that runs: its connection is given up, another one made, and ones that come to nothing. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import type { QmpClient, QmpMigrationStatus } from '../../src/qemu/index.ts';
import { parseAddress } from '../../src/transport/index.ts';
import type { Landing } from './landing.ts';

const STEP_TIMEOUT_MS = 60_000;
/** Pages that a guest asks for until it is at its work. */
const REQUESTS_OF_WORK = 500;
/** How the command begins that a recovery begins with (RECV_BITMAP), no more of it. */
const BEGUN_COMMAND = Buffer.from([0x08, 0x00, 0x0d, 0x00]);

type There = Pick<Landing, 'qmp' | 'again' | 'takesOver'>;

export async function pausePostcopy(source: QmpClient, there: There): Promise<void> {
  await there.takesOver?.(source);
  await source.execute('migrate-pause');
  await both('postcopy-paused', source, there);
}

export async function recoverPostcopy(source: QmpClient, there: There): Promise<void> {
  await resume(source, await again(there));
}

export async function recoverInVain(by: 'reconnect' | 'handshake', source: QmpClient, there: There): Promise<void> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('no port');
  const uri = `tcp:127.0.0.1:${bound.port}`;
  const sockets: Socket[] = [];
  try {
    if (by === 'reconnect') {
      server.close();
      await once(server, 'close');
      // A QEMU says so in its reply, or not until it has tried.
      await resume(source, uri).catch(() => {});
    } else {
      server.on('connection', (socket) => sockets.push(socket));
      const stranger = connectTo(await again(there));
      sockets.push(stranger);
      await once(stranger, 'connect');
      stranger.write(BEGUN_COMMAND);
      await resume(source, uri);
      await both('postcopy-recover', source, there);
    }
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
  await both('postcopy-paused', source, there);
}

/** A guest that sleeps wakes there, whatever of its memory has come. */
export async function wakeGuest({ qmp }: There): Promise<void> {
  if (qmp === undefined) throw new Error('nobody at this destination can wake a guest');
  await qmp.waitForMigration(['postcopy-active'], { timeoutMs: STEP_TIMEOUT_MS });
  const awake = qmp.waitForEvent('WAKEUP', { timeoutMs: STEP_TIMEOUT_MS });
  awake.catch(() => {});
  await qmp.execute('system_wakeup');
  await awake;
}

/** The guest runs in the QEMU, and has worked a while. */
export async function guestTakesOver(qmp: QmpClient, source: QmpClient): Promise<void> {
  const resumed = qmp.waitForEvent('RESUME', { timeoutMs: STEP_TIMEOUT_MS });
  resumed.catch(() => {});
  const { running } = await qmp.execute('query-status');
  if (!running) await resumed;
  await guestWorks(source);
}

/**
 * A QEMU that touches a page which is not there with its own lock in hand, as TCG does to deliver an interrupt, answers nobody until it has
 * come: no one could tell it where to listen. What a guest's interrupts need is there soon: a guest that has asked for many pages has got it; and
 * one that gets slowly what it asks for, on a busy machine, when half of what was left has come all the same, whoever asked.
 */
async function guestWorks(source: QmpClient): Promise<void> {
  const deadlineMs = performance.now() + STEP_TIMEOUT_MS;
  for (let enough = 0; ; ) {
    const { status, ram } = await source.execute('query-migrate');
    const { remaining = 0, 'postcopy-requests': requests = 0 } = ram ?? {};
    if (status !== 'postcopy-active')
      throw new Error(`a guest that has asked for ${requests} pages was to be taken over, but it is ${status}`);
    enough ||= remaining / 2;
    if (requests >= REQUESTS_OF_WORK || (requests > 0 && remaining <= enough)) return;
    if (performance.now() > deadlineMs)
      throw new Error(`the guest has asked for ${requests} pages only, and ${remaining} bytes are left`);
    await pause(20);
  }
}

async function resume(source: QmpClient, uri: string): Promise<void> {
  await source.execute('migrate', { uri, resume: true });
}

async function both(status: QmpMigrationStatus, source: QmpClient, { qmp }: There): Promise<void> {
  const clients = qmp === undefined ? [source] : [source, qmp];
  await Promise.all(clients.map((client) => client.waitForMigration([status], { timeoutMs: STEP_TIMEOUT_MS })));
}

async function again(there: There): Promise<string> {
  const uri = await there.again?.();
  if (uri === undefined) throw new Error('this destination cannot be connected to again');
  return uri;
}

function connectTo(uri: string): Socket {
  const address = parseAddress(uri);
  if (address.kind === 'tcp') return connect(address.port, address.host);
  if (address.kind === 'unix') return connect(address.path);
  throw new Error(`no socket: ${uri}`);
}

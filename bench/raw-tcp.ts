/**
 * What Node itself carries over one loopback TCP connection between two processes, and what is left of it through our Channel.
 * The raw rate is the limit every throughput figure is held against.
 *
 *     node dist/bench/raw-tcp.js [gigabytes]
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { ChannelOutput, connect, listen } from '../src/transport/index.ts';

type Way = 'raw' | 'channel' | 'output';

const WRITE_BYTES = 1024 * 1024;
const RAW_READ_BYTES = 64 * 1024;
const PAGE_BYTES = 4096;

export interface RateOptions {
  readonly bytes: number;
}

/** Bytes per nanosecond (GB/s) of a raw Node stream: 1 MiB writes, a preallocated 64 KiB read buffer. */
export function rawTcpRate(options: RateOptions): Promise<number> {
  return rate('raw', options.bytes);
}

/** The same through Channel.write / Channel.read. */
export function channelRate(options: RateOptions): Promise<number> {
  return rate('channel', options.bytes);
}

/** The same, each 4 KiB page copied from memory into a ChannelOutput first, as the sender does. */
export function outputRate(options: RateOptions): Promise<number> {
  return rate('output', options.bytes);
}

async function rate(way: Way, bytes: number): Promise<number> {
  const receiver = start('receive', way, bytes);
  const [{ port }] = await message<{ port: number }>(receiver);
  const sender = start('send', way, bytes, port);
  const [[{ ms }]] = await Promise.all([
    message<{ ms: number }>(receiver),
    once(sender, 'exit'),
    once(receiver, 'exit'),
  ]);
  return bytes / 1e6 / ms;
}

function start(...args: readonly (string | number)[]): ChildProcess {
  return fork(fileURLToPath(import.meta.url), ['--part', ...args.map(String)]);
}

async function message<T>(child: ChildProcess): Promise<[T]> {
  const outcome = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (typeof outcome[0] !== 'object' || outcome[0] === null) throw new Error('a benchmark process ended early');
  return outcome as [T];
}

const PARTS: Record<string, (bytes: number, port: number) => Promise<void>> = {
  'receive raw': async (bytes) => {
    // The peer connects twice: Node takes a read buffer of ours only on the connecting side.
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    process.send?.({ port: typeof address === 'object' ? address?.port : 0 });
    const [hello] = (await once(server, 'connection')) as [Socket];
    const [port] = (await once(hello, 'data')) as [Buffer];
    server.close();
    hello.destroy();
    let received = 0;
    let startedAt = 0;
    const socket = netConnect({
      host: '127.0.0.1',
      port: Number(port.toString()),
      onread: {
        buffer: Buffer.alloc(RAW_READ_BYTES),
        callback: (count) => {
          startedAt ||= performance.now();
          received += count;
          return true;
        },
      },
    });
    await once(socket, 'close');
    report(received, bytes, startedAt);
  },
  'send raw': async (bytes, port) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    const hello = netConnect(port, '127.0.0.1');
    hello.end(String(typeof address === 'object' ? address?.port : 0));
    const [socket] = (await once(server, 'connection')) as [Socket];
    server.close();
    const block = Buffer.alloc(WRITE_BYTES, 0x5a);
    for (let sent = 0; sent < bytes; sent += block.length) {
      const part = block.subarray(0, Math.min(block.length, bytes - sent));
      await new Promise<void>((resolve) => socket.write(part, () => resolve()));
    }
    socket.end();
  },
  'receive channel': receiveThroughChannel,
  'receive output': receiveThroughChannel,
  'send channel': async (bytes, port) => {
    const channel = await connect({ kind: 'tcp', host: '127.0.0.1', port });
    const block = Buffer.alloc(WRITE_BYTES, 0x5a);
    for (let sent = 0; sent < bytes; sent += block.length)
      await channel.write(block.subarray(0, Math.min(block.length, bytes - sent)));
    await channel.end();
    channel.destroy();
  },
  'send output': async (bytes, port) => {
    const channel = await connect({ kind: 'tcp', host: '127.0.0.1', port });
    const output = new ChannelOutput(channel);
    const memory = Buffer.alloc(256 * 1024 * 1024, 0x5a);
    for (let at = 0, sent = 0; sent < bytes; sent += PAGE_BYTES, at = (at + PAGE_BYTES) % memory.length) {
      if (!output.room(PAGE_BYTES)) {
        const wait = output.flush();
        if (wait !== undefined) await wait;
      }
      memory.copy(output.buffer, output.pos, at, at + Math.min(PAGE_BYTES, bytes - sent));
      output.pos += Math.min(PAGE_BYTES, bytes - sent);
    }
    await output.drained();
    await channel.end();
    channel.destroy();
  },
};

async function receiveThroughChannel(bytes: number): Promise<void> {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  process.send?.({ port: listener.address.kind === 'tcp' ? listener.address.port : 0 });
  const channel = await listener.accept();
  listener.close();
  let received = 0;
  let startedAt = 0;
  for (;;) {
    let chunk = channel.tryRead();
    if (chunk === undefined) chunk = await channel.read();
    if (chunk === null) break;
    startedAt ||= performance.now();
    received += chunk.end - chunk.start;
  }
  channel.destroy();
  report(received, bytes, startedAt);
}

function report(received: number, expected: number, startedAt: number): void {
  if (received !== expected) throw new Error(`${received} bytes of ${expected} arrived`);
  process.send?.({ ms: performance.now() - startedAt });
}

async function main(args: readonly string[]): Promise<void> {
  if (args[0] === '--part') {
    await PARTS[`${args[1]} ${args[2]}`]?.(Number(args[3]), Number(args[4] ?? 0));
    process.disconnect();
    return;
  }
  const bytes = Number(args[0] ?? 4) * 1e9;
  const best: Record<Way, number> = { raw: 0, channel: 0, output: 0 };
  for (let run = 0; run < 3; run++) {
    best.raw = Math.max(best.raw, await rawTcpRate({ bytes }));
    best.channel = Math.max(best.channel, await channelRate({ bytes }));
    best.output = Math.max(best.output, await outputRate({ bytes }));
  }
  for (const [way, gigabytes] of Object.entries(best))
    console.log(`${way.padEnd(8)} ${gigabytes.toFixed(2)} GB/s  ${(gigabytes / best.raw).toFixed(2)} of raw`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));

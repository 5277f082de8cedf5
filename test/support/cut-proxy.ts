import { once } from 'node:events';
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net';
import type { Address } from '../../src/transport/index.ts';

export type CutDirection = 'toTarget' | 'toClient';

export interface CutPlan {
  readonly direction: CutDirection;
  /** Bytes of that direction that still pass. */
  readonly after: number;
  /** `end`: both sides read an orderly end. `reset`: both get a TCP reset. `blackhole`: open, but nothing passes any more. */
  readonly how: 'end' | 'reset' | 'blackhole';
  /** Which connection, counted from 0; default the first. */
  readonly connection?: number;
}

export interface CutProxy {
  readonly address: Address;
  /** Bytes that passed, all connections together. */
  readonly passed: Readonly<Record<CutDirection, number>>;
  /** Resolves when the cut has been made. */
  readonly cut: Promise<void>;
  /** Cuts every connection now. */
  sever(how: CutPlan['how']): void;
  close(): Promise<void>;
}

type Endpoint = Address & { kind: 'tcp' | 'unix' };

/** A link that can be cut: forwards connections to `target` both ways until `plan` says otherwise. Plain node:net on purpose. */
export async function cutProxy(target: Endpoint, plan?: CutPlan, at?: Endpoint): Promise<CutProxy> {
  const passed = { toTarget: 0, toClient: 0 };
  const sockets = new Set<Socket>();
  const severs = new Set<(how: CutPlan['how']) => void>();
  let connections = 0;
  let tellCut: () => void = () => {};
  const cut = new Promise<void>((resolve) => {
    tellCut = resolve;
  });

  const server = createServer({ allowHalfOpen: true }, (client) => {
    const number = connections++;
    const upstream = netConnect({ ...portOf(target), allowHalfOpen: true });
    const mine = plan !== undefined && number === (plan.connection ?? 0) ? plan : undefined;
    const link = { client, upstream, dead: false };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => {
        link.dead = true;
        client.destroy();
        upstream.destroy();
      });
    }
    const sever = (how: CutPlan['how']) => {
      link.dead = true;
      for (const socket of [client, upstream]) {
        if (how === 'reset') socket.resetAndDestroy();
        if (how === 'blackhole') socket.pause();
        if (how !== 'end') continue;
        socket.end();
        // Unread bytes would turn the end into a reset.
        socket.resume();
      }
      tellCut();
    };
    severs.add(sever);
    const forward = (from: Socket, to: Socket, direction: CutDirection) => {
      let left = mine?.direction === direction ? mine.after : Number.POSITIVE_INFINITY;
      from.on('data', (bytes) => {
        if (link.dead) return;
        const part = bytes.subarray(0, Math.min(bytes.length, left));
        left -= part.length;
        passed[direction] += part.length;
        const severed = left === 0 && mine !== undefined;
        if (severed) link.dead = true;
        const more = to.write(part, () => {
          if (severed) sever(mine.how);
        });
        if (!more) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
      from.on('end', () => {
        if (!link.dead) to.end();
      });
      if (left === 0 && mine !== undefined) {
        link.dead = true;
        upstream.once('connect', () => sever(mine.how));
      }
    };
    forward(client, upstream, 'toTarget');
    forward(upstream, client, 'toClient');
  });
  server.listen(at === undefined ? { port: 0, host: '127.0.0.1' } : portOf(at));
  await once(server, 'listening');
  return {
    address: addressOf(server),
    passed,
    cut,
    sever: (how) => {
      for (const sever of severs) sever(how);
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

function portOf(address: Endpoint): { host: string; port: number } | { path: string } {
  return address.kind === 'tcp' ? { host: address.host, port: address.port } : { path: address.path };
}

function addressOf(server: Server): Address {
  const bound = server.address();
  if (bound === null || typeof bound === 'string') return { kind: 'unix', path: bound ?? '' };
  return { kind: 'tcp', host: bound.address, port: bound.port };
}

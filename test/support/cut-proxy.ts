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
  /**
   * Called with bytes before any of them is passed on, and also when none will be any more; a plan it arms holds for them already. `connection`
   * as in a plan.
   */
  onBytes: (direction: CutDirection, bytes: Buffer, connection: number) => void;
  /** Sets another plan while connections are open: `after` counts from their beginning; what has passed already cuts at once. */
  arm(plan: CutPlan): void;
  /** Cuts every connection now, or that one. */
  sever(how: CutPlan['how'], connection?: number): void;
  close(): Promise<void>;
}

type Endpoint = Address & { kind: 'tcp' | 'unix' };

/** A link that can be cut: forwards connections to `target` both ways until `plan` says otherwise. Plain node:net on purpose. */
export async function cutProxy(target: Endpoint, initialPlan?: CutPlan, at?: Endpoint): Promise<CutProxy> {
  let plan = initialPlan;
  const passed = { toTarget: 0, toClient: 0 };
  const sockets = new Set<Socket>();
  const severs = new Map<number, (how: CutPlan['how']) => void>();
  const cutsDue = new Set<() => void>();
  let connections = 0;
  let tellCut: () => void = () => {};
  const cut = new Promise<void>((resolve) => {
    tellCut = resolve;
  });

  // Small pieces go on at once, as the two ends send them.
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const number = connections++;
    const upstream = netConnect({ ...portOf(target), allowHalfOpen: true, noDelay: true });
    const mine = () => (plan !== undefined && number === (plan.connection ?? 0) ? plan : undefined);
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
    severs.set(number, sever);
    const forward = (from: Socket, to: Socket, direction: CutDirection) => {
      let done = 0;
      const left = () => {
        const cut = mine();
        return cut?.direction === direction ? Math.max(0, cut.after - done) : Number.POSITIVE_INFINITY;
      };
      const cutIfDue = () => {
        const cut = mine();
        if (link.dead || cut === undefined || left() > 0) return;
        link.dead = true;
        if (upstream.connecting) upstream.once('connect', () => sever(cut.how));
        else sever(cut.how);
      };
      from.on('data', (bytes) => {
        proxy.onBytes(direction, bytes, number);
        if (link.dead) return;
        const part = bytes.subarray(0, Math.min(bytes.length, left()));
        done += part.length;
        passed[direction] += part.length;
        const severed = left() === 0 ? mine() : undefined;
        if (severed !== undefined) link.dead = true;
        const more = to.write(part, () => {
          if (severed !== undefined) sever(severed.how);
        });
        if (!more) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
      from.on('end', () => {
        if (!link.dead) to.end();
      });
      cutsDue.add(cutIfDue);
      cutIfDue();
    };
    forward(client, upstream, 'toTarget');
    forward(upstream, client, 'toClient');
  });
  server.listen(at === undefined ? { port: 0, host: '127.0.0.1' } : portOf(at));
  await once(server, 'listening');
  const proxy: CutProxy = {
    address: addressOf(server),
    passed,
    cut,
    onBytes: () => {},
    arm: (next) => {
      plan = next;
      for (const cutIfDue of cutsDue) cutIfDue();
    },
    sever: (how, connection) => {
      for (const [number, sever] of severs) if (number === (connection ?? number)) sever(how);
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return proxy;
}

function portOf(address: Endpoint): { host: string; port: number } | { path: string } {
  return address.kind === 'tcp' ? { host: address.host, port: address.port } : { path: address.path };
}

function addressOf(server: Server): Address {
  const bound = server.address();
  if (bound === null || typeof bound === 'string') return { kind: 'unix', path: bound ?? '' };
  return { kind: 'tcp', host: bound.address, port: bound.port };
}

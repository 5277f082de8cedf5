/** SocketAddress of qapi/sockets.json, as far as vmferry has such sockets. */
import { required, str, struct, union } from './schema.ts';

export const SOCKET_ADDRESS = union('SocketAddress', 'type', {
  inet: struct('InetSocketAddress', {
    host: required(str, 'Host name or address.'),
    port: required(str, 'Port number, as text.'),
  }),
  unix: struct('UnixSocketAddress', { path: required(str, 'Path of the socket.') }),
  fd: struct('FdSocketAddress', { str: required(str, 'Number of an open descriptor.') }),
});

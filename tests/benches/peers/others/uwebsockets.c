// The server on uWebSockets, through the C interface of the library that the Python package socketify brings along
// (without Python). Declared here is what is used of it: the package has no headers.
//
//     server [--deflate shared|dedicated] --addr 127.0.0.1:PORT

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { TEXT = 1, TLS_NO = 0, COMPRESSED = 2, LISTEN_EXCLUSIVE_PORT = 1 };

// uWS::CompressOptions.
enum {
    DISABLED = 0,
    SHARED_BOTH = 1 | 1 << 8,
    // Of 32 KiB each.
    DEDICATED_BOTH = (12 << 4 | 5) | 15 << 8,
};

typedef struct App App;
typedef struct Socket Socket;
typedef struct Response Response;
typedef struct Request Request;
typedef struct Context Context;

typedef struct {
    const char *key, *certificate, *passphrase, *dh_parameters, *ca, *ciphers;
    int low_memory;
} TlsOptions;

typedef struct {
    int port;
    const char *host;
    int options;
} Listen;

typedef struct {
    int compression;
    unsigned int max_payload;
    unsigned short idle_timeout;
    unsigned int max_backpressure;
    bool close_on_backpressure;
    bool reset_idle_on_send;
    bool pings;
    unsigned short max_lifetime;
    void (*upgrade)(Response *, Request *, Context *, void *);
    void (*open)(Socket *, void *);
    void (*message)(Socket *, const char *, size_t, int opcode, void *);
    void (*drain)(Socket *, void *);
    void (*ping)(Socket *, const char *, size_t, void *);
    void (*pong)(Socket *, const char *, size_t, void *);
    void (*close)(Socket *, int, const char *, size_t, void *);
    void (*subscription)(Socket *, const char *, size_t, int, int, void *);
} Behaviour;

typedef struct Loop Loop;
Loop *socketify_create_loop(void);
void *socketify_get_native_loop(Loop *);
int socketify_loop_run(Loop *, int mode);
void *uws_get_loop_with_native(void *loop);
App *uws_create_app(int tls, TlsOptions);
void uws_ws(int tls, App *, const char *path, Behaviour, void *user);
void uws_app_listen_with_config(int tls, App *, Listen, void (*)(void *, Listen, void *), void *user);
int uws_ws_send_with_options(int tls, Socket *, const char *, size_t, int opcode, bool compress, bool fin);
bool uws_ws_subscribe(int tls, Socket *, const char *topic, size_t);
bool uws_publish(int tls, App *, const char *topic, size_t, const char *, size_t, int opcode, bool compress);

static App *app;
static int compression = DISABLED;
static const char TOPIC[] = "events";

static void echo(Socket *socket, const char *message, size_t length, int opcode, void *user) {
    (void)user;
    uws_ws_send_with_options(TLS_NO, socket, message, length, opcode, compression != DISABLED, true);
}

static void subscribe(Socket *socket, void *user) {
    (void)user;
    uws_ws_subscribe(TLS_NO, socket, TOPIC, strlen(TOPIC));
}

static void publish(Socket *socket, const char *message, size_t length, int opcode, void *user) {
    (void)socket, (void)user;
    uws_publish(TLS_NO, app, TOPIC, strlen(TOPIC), message, length, opcode, false);
}

static void listening(void *socket, Listen config, void *user) {
    (void)user;
    if (!socket) {
        fprintf(stderr, "cannot listen at %s:%d\n", config.host, config.port);
        exit(1);
    }
}

int main(int count, char **arguments) {
    Listen where = {.options = LISTEN_EXCLUSIVE_PORT};
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(arguments[i], "--deflate")) {
            compression = strcmp(arguments[i + 1], "shared") ? DEDICATED_BOTH : SHARED_BOTH;
        } else if (!strcmp(arguments[i], "--addr")) {
            char *colon = strrchr(arguments[i + 1], ':');
            if (!colon) return 2;
            *colon = 0;
            where.host = arguments[i + 1];
            where.port = atoi(colon + 1);
        }
    }
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    Loop *loop = socketify_create_loop();
    uws_get_loop_with_native(socketify_get_native_loop(loop));
    app = uws_create_app(TLS_NO, (TlsOptions){0});
    Behaviour behaviour = {
        .compression = compression,
        .max_payload = 64 << 20,
        .max_backpressure = 64 << 20,
    };
    behaviour.message = echo;
    uws_ws(TLS_NO, app, "/echo", behaviour, NULL);
    behaviour.message = publish;
    uws_ws(TLS_NO, app, "/pub", behaviour, NULL);
    behaviour.message = NULL;
    behaviour.open = subscribe;
    uws_ws(TLS_NO, app, "/sub", behaviour, NULL);
    uws_app_listen_with_config(TLS_NO, app, where, listening, NULL);
    return socketify_loop_run(loop, 0);
}

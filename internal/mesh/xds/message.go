package xds

import (
	"errors"
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// pack puts a message that we have made ourselves into an Any, with deterministic bytes.
func pack(m proto.Message) *anypb.Any {
	out := new(anypb.Any)
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(fmt.Sprintf("internal error: marshal %T: %v", m, err)) // texts were checked to be UTF-8
	}
	return out
}

func u32[N ~int | ~uint32](n N) *wrapperspb.UInt32Value { return wrapperspb.UInt32(uint32(n)) }

func socketAddress(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// Validate checks a message and everything inside it against the rules of Envoy's API, contents of Any too. Envoy
// drops a whole response for one resource that breaks them.
func Validate(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return fmt.Errorf("validate %s: %w", m.ProtoReflect().Descriptor().Name(), err)
		}
	}
	return validateContents(m.ProtoReflect())
}

// validateContents finds every Any inside m and validates what it holds.
func validateContents(m protoreflect.Message) error {
	if a, ok := m.Interface().(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("open %s: %w", a.GetTypeUrl(), err)
		}
		return Validate(inner)
	}
	var errs []error
	visit := func(v protoreflect.Value) {
		if err := validateContents(v.Message()); err != nil {
			errs = append(errs, err)
		}
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { visit(v); return true })
			}
		case fd.IsList():
			if fd.Message() != nil {
				for i := range v.List().Len() {
					visit(v.List().Get(i))
				}
			}
		case fd.Message() != nil:
			visit(v)
		}
		return true
	})
	return errors.Join(errs...)
}
